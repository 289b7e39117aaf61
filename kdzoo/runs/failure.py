"""What error.txt tells of a run that failed. Free of torch."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from kdzoo.files import PACKAGE

STANDARD_LIBRARY = Path(os.__file__).parent
FRAME = re.compile(r'^  File "([^"]+)", line (\d+)', re.MULTILINE)
"""a frame of a traceback"""
PART = re.compile(r"^in the loss of (\S+):$", re.MULTILINE)
"""the line above a traceback that names the part of the loss"""


@dataclass(frozen=True)
class Failure:
    """Why a run failed. error: the exception in a line; part: the part of the loss; place: `my_loss.py:12`; each None if unknown."""

    error: str
    part: str | None = None
    place: str | None = None


def failure_text(traceback: str, part: str | None) -> str:
    """The text of error.txt. part: that of the loss in which the run failed, where it is known."""
    return traceback if part is None else f"in the loss of {part}:\n{traceback}"


def read_failure(text: str) -> Failure:
    """The failure that an error.txt holds."""
    lines = text.strip().splitlines()
    part = PART.match(text)
    return Failure(lines[-1] if lines else "no reason was kept", part and part[1], _place(text))


def _place(text: str) -> str | None:
    """The deepest frame of a traceback that is neither the trainer's nor a library's: where a method's code failed."""
    frames = [(Path(file), line) for file, line in FRAME.findall(text)]
    own = [
        (file, line)
        for file, line in frames
        if not _is_library(file) and (not file.is_relative_to(PACKAGE) or file.parent.name == "methods")
    ]
    return f"{own[-1][0].name}:{own[-1][1]}" if own else None


def _is_library(file: Path) -> bool:
    return bool({"site-packages", "dist-packages"} & set(file.parts)) or not file.suffix or file.is_relative_to(STANDARD_LIBRARY)
