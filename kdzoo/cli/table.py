"""Tables of plain rows on standard output: laid out for a terminal, or as CSV, Markdown or JSON."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kdzoo.cli.cells import cell_text
from kdzoo.cli.output import UNBROKEN, console, is_bounded, print_json, print_text, print_view, wrapped
from kdzoo.text import columns_that_fit, csv_text, in_encoding, markdown_text, number_of, one_line, shortened

if TYPE_CHECKING:
    from kdzoo.tasks.task import Metric

GAP = 2
"""blanks between two columns"""
SHORTEST = 34
"""characters that a column of prose is shortened to at the most"""

NARROWEST = 24
"""characters that a column of prose has at least where it continues on the next line"""

Row = Mapping[str, Any]


class Format(StrEnum):
    """How a list is printed."""

    table = "table"
    csv = "csv"
    md = "md"
    json = "json"


@dataclass(frozen=True)
class Column:
    """A column of a table; cell: its text in a row, a Text where it is a link. number: aligned to the right.

    prose: a sentence, which is shortened between words where a terminal has room for SHORTEST characters of it, but not for all.
    broken: prose that is not shortened there, but continues on the next line, in NARROWEST characters at least.
    """

    name: str
    cell: Callable[[Row], str | Text]
    number: bool = False
    prose: bool = False
    broken: bool = False


def field(name: str, *, number: bool = False, prose: bool = False) -> Column:
    """The column of a key under its own name."""
    return Column(name.replace("_", " "), lambda row: cell_text(row[name]), number, prose)


def metric_column(part: str, metric: Metric) -> Column:
    """The column of a metric on one part of the data, of rows that have it under `PART_NAME`."""
    return Column(f"{part} {metric.heading}", lambda row: metric.text(row[f"{part}_{metric.name}"]), number=True)


def print_rows(
    rows: Sequence[Row],
    output_format: Format,
    *,
    title: str = "",
    names: Sequence[str] = (),
    columns: Sequence[Column] = (),
) -> None:
    """Print rows that have the same keys.

    names: the keys, where there may be no row. columns: those of the table, the most important first: each one that
    still fits beside those before it is shown, and the others are named below. Without columns every key is one.
    CSV, Markdown and JSON hold every key.
    """
    keys = list(names or (rows[0] if rows else ()))
    match output_format:
        case Format.table:
            _print_table(rows, columns or [field(key) for key in keys], title)
        case Format.csv:
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(keys)
            writer.writerows([_csv_cell(row[key]) for key in keys] for row in rows)
        case Format.md:
            print("\n".join(markdown(rows, keys)))
        case Format.json:
            print_json(list(rows))


def markdown(rows: Iterable[Row], names: Sequence[str]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [names, ["---"] * len(names), *([markdown_text(cell_text(row[name])) for name in names] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _csv_cell(value: Any) -> Any:
    """Numbers as they are, text without formulas."""
    return value if value is None or isinstance(value, int | float) else csv_text(cell_text(value))


def _print_table(rows: Sequence[Row], columns: Sequence[Column], title: str) -> None:
    screen = console()
    if title:
        print_text(wrapped(title, screen.width) if is_bounded(screen) else title, style="italic")
    for part in table_parts(rows, columns, screen):
        print_view(part)


def table_parts(rows: Sequence[Row], columns: Sequence[Column], screen: Console) -> list[RenderableType]:
    """A table of the columns that fit on a screen, and a line that names the others."""
    cells = {column.name: [_cell(column, row, screen.encoding) for row in rows] for column in columns}
    widths = _widths(columns, cells, screen.width)
    bounded = is_bounded(screen)
    broken = [column.name for column in columns if column.broken]
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in columns:
        if column.name in widths:
            most = widths[column.name] if column.broken and bounded else None
            table.add_column(column.name, overflow="fold", justify="right" if column.number else "left", max_width=most)
    for number in range(len(rows)):
        shown = [(cells[name][number], width if bounded and name not in broken else UNBROKEN) for name, width in widths.items()]
        table.add_row(*(_fitted(cell, width, screen.encoding) for cell, width in shown))
    left = [column.name for column in columns if column.name not in widths]
    more = f"{number_of(len(left), 'more column')}: {', '.join(left)} (in a wider terminal, or with --format csv, md or json)"
    return [table, Text(wrapped(more, screen.width) if bounded else more, style="dim")] if left else [table]


def _widths(columns: Sequence[Column], cells: Mapping[str, Sequence[str | Text]], room: int) -> dict[str, int]:
    """The columns that are shown and their widths: prose has at least SHORTEST characters, and what the others leave."""
    whole = {name: max(cell_len(name), *(cell_len(str(cell)) for cell in texts), 0) for name, texts in cells.items()}
    prose = {column.name: _longest_word(cells[column.name]) if column.broken else SHORTEST for column in columns if column.prose}
    least = {name: min(width, max(prose[name], cell_len(name))) if name in prose else width for name, width in whole.items()}
    widths = {name: least[name] for name in columns_that_fit(least, room, gap=GAP)}
    spare = room - sum(widths.values()) - GAP * (len(widths) - 1)
    for name in filter(widths.__contains__, prose):
        more = max(0, min(whole[name] - widths[name], spare))
        widths[name] += more
        spare -= more
    return widths


def _longest_word(texts: Iterable[str | Text]) -> int:
    """The characters that prose takes at least where it continues on the next line without a broken word."""
    return max(NARROWEST, *(cell_len(word) for text in texts for word in str(text).split()), 0)


def _cell(column: Column, row: Row, encoding: str) -> str | Text:
    cell = column.cell(row)
    return cell if isinstance(cell, Text) else one_line(in_encoding(cell, encoding))


def _fitted(cell: str | Text, width: int, encoding: str) -> str | Text:
    """A cell as a table takes it, shortened to `width` characters where it is longer."""
    if isinstance(cell, Text) or cell_len(cell) <= width:
        return cell if isinstance(cell, Text) else escape(cell)
    ellipsis = len(in_encoding("…", encoding)) - 1
    return escape(in_encoding(shortened(cell, width - ellipsis), encoding))
