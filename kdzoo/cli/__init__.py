"""The command line: one file for each group of verbs. Nothing here imports torch before a verb needs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line and leave with its exit status."""
    try:
        from kdzoo.cli.app import main as run
    except KeyboardInterrupt:  # the half second of imports before `run` handles signals
        sys.exit(130)
    run(arguments)


__all__ = ["main"]
