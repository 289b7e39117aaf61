"""What the verbs print: messages on standard error, tables of plain rows on standard output."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import cache
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kdzoo.text import csv_text, markdown_text, one_line


class Interrupted(BaseException):
    """Ctrl-C or a polite kill. Not an Exception, so that nothing on the way up takes it for a run's failure."""


class Format(StrEnum):
    """How a list is printed."""

    table = "table"
    csv = "csv"
    md = "md"
    json = "json"


def say(text: str) -> None:
    """One line on standard error, under the program's name."""
    print(f"kdzoo: {one_line(text)}", file=sys.stderr, flush=True)


@cache
def console() -> Console:
    """Standard output; where it is not a terminal as wide as COLUMNS says, else 200 characters, so that a pipe gets whole lines."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return Console(soft_wrap=False, highlight=False)
    return Console(width=200, highlight=False)


def show(rows: Sequence[dict[str, Any]], how: Format, *, title: str = "", columns: Sequence[str] = ()) -> None:
    """Print rows that have the same keys; `columns` name them where there may be no row."""
    names = list(columns or (rows[0] if rows else ()))
    match how:
        case Format.table:
            if title:
                console().print(title, style="italic", markup=False, soft_wrap=True)
            console().print(_table(rows, names))
        case Format.csv:
            writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: csv_text(cell) if isinstance(cell, str) else cell for name, cell in row.items()} for row in rows)
        case Format.md:
            print("\n".join(markdown(rows, names)))
        case Format.json:
            print(json.dumps(list(rows), indent=1, ensure_ascii=False))


def markdown(rows: Iterable[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [names, ["---"] * len(names), *([markdown_text(text(row[name])) for name in names] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def text(value: object) -> str:
    """A cell: nothing for None, numbers without noise."""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _table(rows: Iterable[dict[str, Any]], names: Sequence[str]) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(one_line(text(row[name]))) for name in names))
    return table
