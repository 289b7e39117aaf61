"""What the commands print: messages on standard error, text and JSON on standard output."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from kdzoo.text import in_encoding, one_line

if TYPE_CHECKING:
    from kdzoo.tasks.task import Metric

PIPE_WIDTH = 200
"""columns of a table in a pipe, where COLUMNS does not say"""
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


def print_text(text: str, style: str = "") -> None:
    """Print text on standard output; a terminal breaks its lines between words, a pipe gets them whole."""
    screen = console()
    lines = wrapped(text, screen.width) if screen.file.isatty() else text
    screen.print(lines, style=style, markup=False, soft_wrap=True)
    screen.file.flush()


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
    columns = os.environ.get("COLUMNS", "")
    named = int(columns) if columns.isdigit() and int(columns) else None
    return PlainConsole(width=named or (None if sys.stdout.isatty() else PIPE_WIDTH), highlight=False)


def print_json(value: object) -> None:
    """JSON on standard output, as the commands' --json prints it."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def markdown(rows: Iterable[Row], names: Sequence[str]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [names, ["---"] * len(names), *([markdown_text(text(row[name])) for name in names] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def text(value: object) -> str:
    """A cell: nothing for None, numbers without noise, lists and mappings between commas."""
    match value:
        case None:
            return ""
        case float():
            return f"{value:.6g}"
        case Mapping():
            return ", ".join(f"{key}={text(item)}" for key, item in value.items())
        case list() | tuple():
            return ", ".join(map(text, value))
        case bool():
            return "yes" if value else "no"
    return str(value)


def metric_column(part: str, metric: Metric) -> Column:
    """The column of a metric on one part of the data, of rows that have it under `PART_NAME`."""
    return Column(f"{part} {metric.heading}", lambda row: metric.text(row[f"{part}_{metric.name}"]), number=True)


def compact(count: int | None) -> str:
    """A count to three digits: `590`, `70.3 k`, `278 k`, `1.07 M`, `1.30 G`."""
    if count is None:
        return ""
    if count < 1000:
        return str(count)
    size, unit = next((size, unit) for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if count >= 0.9995 * size)
    number = count / size
    return f"{number:.{0 if number >= 99.95 else 1 if number >= 9.995 else 2}f} {unit}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`, `2,877 h (120 days)`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h ({number_of(round(hours / 24), 'day')})"


def _csv_cell(value: Any) -> Any:
    """Numbers as they are, text without formulas."""
    return value if value is None or isinstance(value, int | float) else csv_text(text(value))


def _print_table(rows: Sequence[Row], columns: Sequence[Column], title: str) -> None:
    screen = console()
    if title:
        print_text(title, style="italic")
    cells = {column.name: [_cell(column, row, screen.encoding) for row in rows] for column in columns}
    widths = _widths(columns, cells, screen.width)
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in columns:
        if column.name in widths:
            table.add_column(column.name, overflow="fold", justify="right" if column.number else "left")
    for number in range(len(rows)):
        table.add_row(*(_fitted(cells[name][number], width, screen.encoding) for name, width in widths.items()))
    screen.print(table)
    if left := [column.name for column in columns if column.name not in widths]:
        what = number_of(len(left), "more column")
        screen.print(f"{what}: {', '.join(left)} (in a wider terminal, or with --format csv, md or json)", style="dim", markup=False)


def _widths(columns: Sequence[Column], cells: Mapping[str, Sequence[str | Text]], room: int) -> dict[str, int]:
    """The columns that are shown and their widths: prose has at least SHORTEST characters, and what the others leave."""
    whole = {name: max(cell_len(name), *(cell_len(str(cell)) for cell in texts), 0) for name, texts in cells.items()}
    prose = [column.name for column in columns if column.prose]
    least = {name: min(width, max(SHORTEST, cell_len(name))) if name in prose else width for name, width in whole.items()}
    shown = {name: least[name] for name in columns_that_fit(least, room, gap=GAP)}
    spare = room - sum(shown.values()) - GAP * (len(shown) - 1)
    for name in filter(shown.__contains__, prose):
        more = max(0, min(whole[name] - shown[name], spare))
        shown[name] += more
        spare -= more
    return shown


def _cell(column: Column, row: Row, encoding: str) -> str | Text:
    cell = column.cell(row)
    return cell if isinstance(cell, Text) else one_line(in_encoding(cell, encoding))


def _fitted(cell: str | Text, width: int, encoding: str) -> str | Text:
    """A cell as a table takes it, shortened to `width` characters where it is longer."""
    if isinstance(cell, Text) or cell_len(cell) <= width:
        return cell if isinstance(cell, Text) else escape(cell)
    ellipsis = len(in_encoding("…", encoding)) - 1
    return escape(in_encoding(shortened(cell, width - ellipsis), encoding))
