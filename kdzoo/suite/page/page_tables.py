"""Tables of the page: what a cell says, and the number of the CSV that it is ordered by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from kdzoo.suite.page.data import plain
from kdzoo.suite.page.tables import BenchTables
from kdzoo.suite.report.blocks import TEACHER
from kdzoo.suite.report.columns import columns_for
from kdzoo.suite.report.records import Record
from kdzoo.suite.report.reported import REPORTED_ROWS
from kdzoo.suite.report.sections import sections
from kdzoo.suite.report.settings import setting_text
from kdzoo.suite.report.terminal import essential_columns, is_words
from kdzoo.tasks.task import Metric


@dataclass(frozen=True)
class Heading:
    """A column. meaning: what it holds, in words; shown: whether it is there before a reader chooses; text: aligned to the left."""

    name: str
    meaning: str = ""
    shown: bool = True
    text: bool = False


@dataclass(frozen=True)
class Cell:
    """What a cell says, and what it is ordered by; value None: by its text."""

    text: str
    value: str | float | int | None = None


@dataclass(frozen=True)
class PageTable:
    """A table of the page. references: the numbers of rows that are no contestants, such as the teacher's."""

    caption: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Cell, ...], ...]
    references: frozenset[int] = frozenset()

    @property
    def names_row(self) -> int:
        """The number of the column that names a row."""
        names = [heading.name for heading in self.headings]
        return names.index("method") if "method" in names else 0


def leaderboard_tables(tables: BenchTables) -> list[PageTable]:
    """The leaderboard, table by table with its collapsed rows and methods over pairs; cells carry leaderboard.csv's values."""
    return [_board_table(title, frame, tables) for title, frame in sections(tables.bench, tables.board)]


def further_columns(metric: Metric) -> tuple[str, ...]:
    """The columns that are shown at first beside the essential ones."""
    return ("vs student alone", "gap closed", "MACs", "time", "tried", f"val {metric.heading}")


def _board_table(title: str, frame: pd.DataFrame, tables: BenchTables) -> PageTable:
    by_name = {column.name: column for column in columns_for(tables.metric)}
    at_first = {*essential_columns(tables.metric), *further_columns(tables.metric)}
    of_rows = "pairs" not in frame and frame.index.name != REPORTED_ROWS  # rows of the leaderboard itself, under their numbers there
    headings = tuple(
        Heading(str(name), by_name[name].meaning if name in by_name else "", name in at_first, is_words(str(name)))
        for name in frame.columns
    )
    rows = []
    for number, texts in zip(frame.index, frame.itertuples(index=False), strict=True):
        of_csv = tables.board.loc[number] if of_rows else None
        rows.append(tuple(_cell(str(text), str(name), by_name, of_csv) for name, text in zip(frame.columns, texts, strict=True)))
    references = frozenset(at for at, method in enumerate(frame["method"]) if method == TEACHER)
    return PageTable(title, headings, tuple(rows), references)


def _cell(text: str, name: str, declared: Mapping[str, object], of_csv: pd.Series | None) -> Cell:
    column = getattr(declared.get(name), "value", "")
    return Cell(text, plain(of_csv[column]) if of_csv is not None and column else None)


def text_table(caption: str, frame: pd.DataFrame) -> PageTable:
    """A frame of text as it is; a column that holds words is aligned to the left."""
    headings = tuple(Heading(str(name), text=at == 0 or name == "value" or is_words(str(name))) for at, name in enumerate(frame.columns))
    return PageTable(caption, headings, tuple(tuple(Cell(str(cell)) for cell in row) for row in frame.itertuples(index=False)))


def failure_table(records: Sequence[Record]) -> PageTable:
    """Every run that failed or is damaged, with the last line of what it said."""
    headings = [Heading(name, text=name != "seed") for name in ("run", "method", "setting", "seed", "last line")]
    rows = [
        (
            Cell(r.id),
            Cell(r.method),
            Cell(setting_text(r.run, r.about)),
            Cell(str(r.run.seed), r.run.seed),
            Cell(r.error or "no reason was kept"),
        )
        for r in records
        if r.state in ("failed", "damaged")
    ]
    return PageTable("Failed and damaged runs", tuple(headings), tuple(rows))
