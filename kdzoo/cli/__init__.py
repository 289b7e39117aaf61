"""The command line: one file for each group of verbs. Nothing here imports torch before a verb needs it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kdzoo.cli.interruption import INTERRUPTED, MESSAGE, catch_signals, was_interrupted


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line and leave with its exit status."""
    catch_signals()  # before the half second of imports
    try:
        from kdzoo.cli.app import main as run

        run(arguments)
    except SystemExit:
        raise
    except BaseException:
        if not was_interrupted():
            raise
        print(f"kdzoo: {MESSAGE}", file=sys.stderr)
        sys.exit(INTERRUPTED)


__all__ = ["main"]
