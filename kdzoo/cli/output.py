"""What the commands print: messages on standard error, text, tables and JSON on standard output.

One rule for every line: a terminal breaks it between words, anywhere else it is whole, so that another program can read it.
COLUMNS says how wide a table is, in a pipe too; a paragraph is not broken by it, since programs that embed an editor of lines, such
as Python with readline, hand it to all that they start.
"""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from kdzoo.text import in_encoding, one_line

PIPE_WIDTH = 200
"""characters of a table in a pipe, where COLUMNS does not say: what has no room is left out column by column, and named"""
UNBROKEN = 20_000
"""the width at which nothing is broken"""
PATIENCE_SECONDS = 2.0
"""how long somebody waits without asking what for"""
LABEL = re.compile(r" *(?:\S+(?: \S+)? {2,})?")
"""a line's indent, and its label where blanks set one apart"""


class PlainConsole(Console):
    """A console that replaces the characters its encoding lacks before anything is laid out, so that columns stay aligned."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(in_encoding(text, self.encoding), **how)


def print_message(text: str) -> None:
    """Print a message on standard error, under the program's name; a terminal breaks it between words, a pipe gets one line."""
    message = f"kdzoo: {one_line(text)}"
    if sys.stderr.isatty():
        message = wrapped(message, Console(stderr=True).width)
    print(message, file=sys.stderr, flush=True)


@contextmanager
def announce_if_slow(text: str, seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Say on standard error what a block is doing, where it takes more than some seconds: what is wrong is mostly told before."""
    timer = threading.Timer(seconds, print_message, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def print_text(text: str, style: str = "") -> None:
    """Print text on standard output; a terminal breaks its lines between words, a pipe gets them whole."""
    screen = console()
    lines = wrapped(text, screen.width) if screen.is_terminal else text
    screen.print(lines, style=style, markup=False, soft_wrap=True)
    screen.file.flush()


def print_view(view: RenderableType) -> None:
    """Print tables and paragraphs on standard output; a pipe gets both whole, unless COLUMNS says how wide tables are."""
    screen = console()
    if screen.is_terminal:
        screen.print(view)
        return
    wide = screen if is_bounded(screen) else PlainConsole(width=UNBROKEN, highlight=False)
    with wide.capture() as printed:
        wide.print(view, no_wrap=True, overflow="ignore", crop=False)  # of the paragraphs: a table's columns have their own
    print("\n".join(map(str.rstrip, printed.get().splitlines())), flush=True)


def wrapped(text: str, width: int) -> str:
    """Lines of at most `width` characters, broken between words; a longer word, such as a path, stays whole.

    What is broken continues below its beginning: `recipe        digits, ...` below `digits`, an indented line at its indent.
    """
    return "\n".join(
        "\n".join(textwrap.wrap(line, width, subsequent_indent=" " * _hang(line), break_long_words=False, break_on_hyphens=False)) or line
        for line in text.split("\n")
    )


def _hang(line: str) -> int:
    """The column at which the text of a line begins, behind its label and at least two blanks."""
    label = LABEL.match(line)
    return label.end() if label and label.end() < len(line) else 0


def with_label(line: tuple[str, str]) -> str:
    """A line of a plan: a word, and what it stands for below those of the other lines."""
    name, text = line
    return f"{name:14}{text}"


def console() -> Console:
    """Standard output, as wide as COLUMNS says, else as the terminal is, else PIPE_WIDTH."""
    return PlainConsole(width=columns_variable() or (None if sys.stdout.isatty() else PIPE_WIDTH), highlight=False)


def is_bounded(screen: Console) -> bool:
    """Whether somebody said how wide a table may be: the terminal, or COLUMNS."""
    return screen.is_terminal or columns_variable() is not None


def columns_variable() -> int | None:
    """What COLUMNS says; None where it says nothing."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) else None


def print_json(value: object) -> None:
    """JSON on standard output, as the commands' --json prints it."""
    print(json.dumps(value, indent=1, ensure_ascii=False))
