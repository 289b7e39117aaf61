"""Tables for a terminal: as many columns as fit, what is left out said below, and everything that went wrong."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Iterable, Sequence

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.beside import DIFFERENCE
from kdzoo.suite.report.blocks import TEACHER
from kdzoo.suite.report.columns import ALL_COLUMNS, columns_of, selected
from kdzoo.suite.report.footnotes import footnotes
from kdzoo.suite.report.published import TASK
from kdzoo.suite.report.sections import sections
from kdzoo.suite.report.swept_text import Grid
from kdzoo.suite.report.verdict import verdicts
from kdzoo.tasks.task import Metric
from kdzoo.text import ascii_text, columns_that_fit, number_of, one_line

RANK = "#"
REPEATED = (RANK, "method", "setting", "measure")
"""what stands in every part of a table that is too wide for one"""
GAP = 2
"""characters between columns"""
LONGEST_SETTING = 34
"""characters of a setting for which the layout keeps room"""
LONGEST_HEADING = 10
"""characters of a heading that is wider than its cells before it continues on the next line"""
WORDS = {"method", "setting", "class", "pair", "data", "phase", "recipe", "why", "table", "differs", "measure", "reached", "known reason"}


def essential_columns(metric: Metric) -> tuple[str, ...]:
    """The columns of a leaderboard that are always shown, of a task with this headline."""
    tested = [f"test {one.heading}" for one in (metric, *metric.beside)]
    return (RANK, "method", "setting", "n", *tested, "vs KD", "pairs", "mean rank", "why")


def optional_columns(metric: Metric) -> tuple[str, ...]:
    """The others in the order in which they are added as long as they fit; so the last is left out first."""
    return (
        "p KD", "on common seeds", "vs student alone", "p alone", "gap closed", "MACs", "time", "vs KD all", "p KD all",
        "vs alone all", "p alone all", f"val {metric.heading}", f"{metric.heading} at best val", "best on test (oracle)", "memory",
        "passes", "tried", "status", "replicas", "clock s",
    )  # fmt: skip


def leaderboard_view(bench: BenchRecords, board: pd.DataFrame, width: int, columns: str | None = None) -> RenderableType:
    """The leaderboard, a table for every pair and phase, with its collapsed rows, footnotes, failed runs, notes and the verdict.

    columns: `all`, or headings separated by commas; None for those that fit into `width` characters.
    """
    parts: list[RenderableType] = []
    frames: list[pd.DataFrame] = []
    metric = bench.task.headline
    essential, further = essential_columns(metric), optional_columns(metric)
    for title, whole in sections(bench, board):
        frame = as_many_as_fit(whole, width, essential, further) if columns is None else selected(whole, columns, metric)
        frames.append(frame)
        parts.append(titled(f"{bench.name}: {title}", frame, width))
        if columns is None and (left := left_out(whole, frame, "leaderboard.csv")):
            parts.append(Text(f"{left}\n", style="dim"))
    parts.append(Text("\n".join(footnotes(bench, board, frames)), style="dim"))
    for record in bench.records:
        if record.state == "failed":
            parts.append(Text(one_line(f"failed: {record.id} (seed {record.run.seed}): {record.error}"), style="red"))
    parts.extend(Text(one_line(f"note: {note}"), style="yellow") for note in bench.notes)
    parts.extend(Text(f"\n{one_line(line)}", style="bold") for line in verdicts(bench))
    return InPlainText(Group(*parts))


def comparison_view(
    sections: Sequence[tuple[str, pd.DataFrame]], names: Sequence[str], metric: Metric, width: int, columns: str | None
) -> RenderableType:
    """Benches beside each other, table by table, with the columns that fit. metric: what is compared."""
    differences = [f"{name} - {names[0]}" for name in names[1:]]
    essential = ("method", *names, *differences)
    settings = ("setting", *(f"{name} setting" for name in names))
    further = (*settings, *(f"{d} p" for d in differences), *(f"{name} n" for name in names), *(f"{d} test" for d in differences))
    parts: list[RenderableType] = []
    beside = f", differences to {names[0]} with 95 % intervals" if differences else ""
    parts.append(Text(f"Test {metric.phrase}{beside}", style="dim"))
    for title, whole in sections:
        filled = whole[[name for name in whole.columns if name == "method" or whole[name].any()]]
        frame = as_many_as_fit(filled, width, essential, further) if columns is None else columns_of(filled, columns)
        parts.append(titled(title, frame, width))
        if columns is None and (left := left_out(filled, frame, "--format csv")):
            parts.append(Text(f"{left}\n", style="dim"))
    return InPlainText(Group(*parts))


def sections_view(sections: Sequence[tuple[str, pd.DataFrame]], width: int) -> RenderableType:
    """Tables below their titles, each in parts that fit into `width` characters."""
    return InPlainText(Group(*(titled(title, frame, width) for title, frame in sections)))


def per_class_view(sections: Sequence[tuple[str, pd.DataFrame]], width: int) -> RenderableType:
    """Errors per class below their titles, each table in the layout that is broken into the fewest parts of `width` characters.

    First as it is; then without the settings, where no method has two; then with a row for each class.
    """
    parts = []
    for title, whole in sections:
        plain = whole.drop(columns="setting", errors="ignore") if whole["method"].is_unique else whole
        turned = plain.set_index("method").T.rename_axis("class").reset_index() if plain["method"].is_unique else plain
        frame = min((whole, plain, turned), key=lambda one: len(parts_of(one, width, (*REPEATED, "n", "class"))))
        parts.append(titled(title, frame, width, (*REPEATED, "n", "class")))
    return InPlainText(Group(*parts))


def grids_view(grids: Sequence[Grid], width: int) -> RenderableType:
    """The sweep of a method: each grid below its title, with what has to be said of it below."""
    parts: list[RenderableType] = []
    for grid in grids:
        parts.append(titled(grid.title, grid.cells, width, repeated=(grid.label,)))
        parts.extend(Text(one_line(note), style="dim") for note in grid.notes)
        parts.append(Text())
    return InPlainText(Group(*parts[:-1]))


def beside_view(sections: Sequence[tuple[str, pd.DataFrame]], notes: Sequence[str], width: int, columns: str | None) -> RenderableType:
    """Rows beside published numbers, table by table, with the columns that fit, and below what differs between the protocols."""
    essential = ("method", "ours", "published", DIFFERENCE, "table", "differs")
    parts: list[RenderableType] = []
    if sections:
        parts.append(Text(f"Test {TASK.headline.phrase}; 95 % intervals of ours minus the published number", style="dim"))
    for title, whole in sections:
        filled = whole[[name for name in whole.columns if name == "method" or whole[name].any()]]
        frame = as_many_as_fit(filled, width, essential, ("n", "sd", "setting")) if columns is None else columns_of(filled, columns)
        parts.append(titled(title, frame, width))
        if columns is None and (left := left_out(filled, frame, "--format csv")):
            parts.append(Text(f"{left}\n", style="dim"))
    parts.extend(Text(one_line(note), style="dim") for note in notes)
    return InPlainText(Group(*parts))


def evidence_view(title: str, whole: pd.DataFrame, width: int, page: str) -> RenderableType:
    """A study's numbers beside the paper's, with the columns that fit; the others are in its page."""
    essential, further = ("measure", "paper", "n", "measured", "reached"), ("95 % interval", "known reason")
    filled = whole[[name for name in whole.columns if whole[name].any()]]
    frame = as_many_as_fit(filled, width, essential, further)
    left = left_out(filled, frame, page).replace(f"--columns {ALL_COLUMNS}, or ", "in ")
    return InPlainText(Group(titled(title, frame, width), *([Text(left, style="dim")] if left else [])))


def as_many_as_fit(frame: pd.DataFrame, width: int, essential: Sequence[str], further: Sequence[str]) -> pd.DataFrame:
    """The needed columns, then further ones in their order up to the first that does not fit into `width` characters.

    Where not even the needed ones fit with their text broken between all words, the rank is left out: the order of rows
    shows it too.
    """
    essential = [name for name in essential if name in frame.columns]
    if sum(_least_width(frame, name) + GAP for name in essential) - GAP > width and essential[0] == RANK:
        essential = essential[1:]
    further = [name for name in further if name in frame.columns and frame[name].any()]
    fit = columns_that_fit(_widths(frame, [*essential, *further]), width, gap=GAP)
    chosen = {*essential, *itertools.takewhile(fit.__contains__, [*essential, *further])}
    return frame[[name for name in frame.columns if name in chosen]]


def _widths(frame: pd.DataFrame, names: Iterable[str]) -> dict[str, int]:
    return {name: _column_width(frame, name) for name in names}


def left_out(whole: pd.DataFrame, frame: pd.DataFrame, file: str) -> str:
    """Which columns with something in them are not shown, and where they are; empty where none is missing."""
    missing = missing_columns(whole, frame)
    if not missing:
        return ""
    return f"{number_of(len(missing), 'more column')} ({'; '.join(missing)}): --columns {ALL_COLUMNS}, or {file}"


def missing_columns(whole: pd.DataFrame, shown: pd.DataFrame) -> list[str]:
    """The columns with something in them that are not shown."""
    return [str(name) for name in whole.columns if name not in shown.columns and whole[name].any()]


def titled(title: str, frame: pd.DataFrame, width: int, repeated: Sequence[str] = REPEATED) -> RenderableType:
    """A table below its title, in parts below each other where it is wider than `width`. repeated: columns that name a row."""
    parts = parts_of(frame, width, repeated)
    return Group(Text(one_line(title), style="bold"), *(Padding(frame_table(part), (0, 0, 1, 0)) for part in parts))


def parts_of(frame: pd.DataFrame, width: int, repeated: Sequence[str] = REPEATED) -> list[pd.DataFrame]:
    """A table's columns in parts that fit into `width` characters; each begins with the columns that name a row."""
    first = [name for name in repeated if name in frame.columns]
    start = sum(_least_width(frame, name) + GAP for name in first)
    parts: list[list[str]] = [[]]
    room = width + GAP - start
    for name in [name for name in frame.columns if name not in first]:
        need = _least_width(frame, name) + GAP
        if parts[-1] and need > room:
            parts.append([])
            room = width + GAP - start
        parts[-1].append(name)
        room -= need
    return [frame[[*first, *part]] for part in parts]


def _column_width(frame: pd.DataFrame, name: str) -> int:
    """Characters that a column takes: of its widest cell, or of its heading, which may be broken between words."""
    cells = int(frame[name].map(len).max()) if len(frame) else 0
    heading = max(map(len, _heading(frame, name)), default=0)
    return max(min(cells, LONGEST_SETTING) if is_words(name) else cells, heading)


def _least_width(frame: pd.DataFrame, name: str) -> int:
    """Characters that a column takes where its text is broken between all words."""
    if not is_words(name) or name == "method":
        return _column_width(frame, name)
    words = [word for cell in (*frame[name], name) for word in str(cell).split()]
    return min(max(map(len, words), default=0), LONGEST_SETTING)


def _heading(frame: pd.DataFrame, name: str) -> list[str]:
    """The lines of a column's heading: broken between words, and a path behind a slash."""
    cells = int(frame[name].map(len).max()) if len(frame) else 0
    how = {"break_long_words": False, "break_on_hyphens": False, "replace_whitespace": False}
    lines = textwrap.wrap(one_line(name).replace("/", f"/{MAY_BREAK}"), max(cells, LONGEST_HEADING), **how)  # type: ignore[arg-type]
    return [line.replace(MAY_BREAK, "") for line in lines]


MAY_BREAK = "\v"
"""blank to textwrap, and in no heading"""


def is_words(name: str) -> bool:
    return name in WORDS or str(name).endswith((" test", " setting"))


def frame_table(frame: pd.DataFrame, title: str | None = None) -> Table:
    """A frame of text as a table, numbers to the right, the teacher's reference row dimmed. Brackets are no markup."""
    table = Table(
        title=None if title is None else Text(one_line(title)),
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),
    )
    headings = {name: _heading(frame, name) for name in map(str, frame.columns)}
    lines = max(map(len, headings.values()), default=0)
    for name, words in headings.items():
        text = Text("\n".join([""] * (lines - len(words)) + words))
        breaks = is_words(name) and name != "method"
        table.add_column(
            text,
            justify="left" if is_words(name) else "right",
            overflow="fold",
            no_wrap=not breaks,
        )
    for _, row in frame.iterrows():
        table.add_row(*(Text(one_line(cell)) for cell in row), style="dim" if row.get("method") == TEACHER else None)
    return table


class InPlainText:
    """A renderable whose text is replaced before columns are laid out where the terminal cannot write ± and the like.

    What is replaced while it is written would be wider than its column.
    """

    def __init__(self, content: RenderableType) -> None:
        self.content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield with_text(self.content, ascii_text) if options.ascii_only else self.content


def with_text(content: RenderableType, change: Callable[[str], str]) -> RenderableType:
    """Tables and texts with their text changed."""
    if isinstance(content, Group):
        return Group(*(with_text(part, change) for part in content.renderables))
    if isinstance(content, Padding):
        return Padding(with_text(content.renderable, change), (content.top, content.right, content.bottom, content.left))
    if isinstance(content, Text):
        return Text(change(content.plain), style=content.style)
    if isinstance(content, Table):
        for column in content.columns:
            column.header = with_text(column.header, change)
            column._cells = [with_text(cell, change) for cell in column._cells]
    return content
