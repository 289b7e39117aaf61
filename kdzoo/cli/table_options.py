"""Options of the commands that print tables of results: format, order, rows and columns."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from kdzoo.cli import complete
from kdzoo.cli.declare import option

if TYPE_CHECKING:
    import pandas as pd

    from kdzoo.tasks.task import Task


class TableFormat(StrEnum):
    """How a table of results is printed."""

    table = "table"
    csv = "csv"
    md = "md"
    latex = "latex"
    json = "json"


TableFormatOption = Annotated[
    TableFormat,
    option(
        "--format",
        text=f"{', '.join(TableFormat)}.",
        default=TableFormat.table.value,
        metavar="FORMAT",
        names_of=complete.of(*TableFormat),
    ),
]


Sort = Annotated[str | None, option(text="Order by a column of the CSV, best first.", default="by rank", metavar="COLUMN")]


Filter = Annotated[
    list[str] | None,
    option(
        "--filter",
        metavar="CONDITION",
        text="Show only rows with COLUMN=VALUE, or with !=, <, <=, > or >= (repeatable).",
        default="all rows",
    ),
]


Columns = Annotated[
    str | None,
    option(
        metavar="NAMES",
        text="Columns to show: all, or headings of the table joined with commas (for csv and json, column names of the file).",
        default="as many as fit",
        names_of=complete.of("all"),
    ),
]


def filter_and_sort(frame: pd.DataFrame, sort: str | None, only: list[str] | None, task: Task) -> pd.DataFrame:
    """The rows that every condition picks, in the order of a column. task: that of the rows."""
    from kdzoo.suite.report.rows import filtered, sorted_by

    for condition in only or ():
        frame = filtered(frame, condition)
    return frame if sort is None else sorted_by(frame, sort, task)
