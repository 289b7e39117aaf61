"""Long lists of costly cases are tried a part at each commit, so that over the commits all of them are.

The part follows from the commit alone: it is the same on every machine, and the head of pytest's output says how to try it
again. Without a commit, or with KDZOO_TURN=all, every case is tried.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

VARIABLE = "KDZOO_TURN"


@cache
def turn() -> int | None:
    """The number that decides; None where every case is tried."""
    word = os.environ.get(VARIABLE, "")
    if word == "all":
        return None
    if word:
        return int(word)
    command = ["git", "rev-parse", "--short=8", "HEAD"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return int(done.stdout[:8], 16) if done.returncode == 0 else None


T = TypeVar("T")


def part_of(cases: Sequence[T], parts: int, *, begin: int = 0) -> list[T]:
    """The cases whose turn it is: one of so many parts, each as large as the next.

    begin: moves the turns of a list on, so that a case that several lists hold has its turns at other commits in each.
    """
    number = turn()
    return [case for place, case in enumerate(cases) if number is None or (place + begin + number) % parts == 0]


def report() -> str:
    """For the head of pytest's output."""
    number = turn()
    what = "every case" if number is None else f"a part of them, again with {VARIABLE}={number}, all with {VARIABLE}=all"
    return f"costly cases: {what}"
