"""The command line: one file for each group of verbs. Nothing here imports torch before a verb needs it."""

from __future__ import annotations

from kdzoo.cli.app import main

__all__ = ["main"]
