"""`kdzoo leaderboard` and `kdzoo compare`: a bench's tables, and several benches beside each other. Free of torch."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdzoo.cli.output import console
from kdzoo.cli.places import bench_folder
from kdzoo.cli.status import ResultsFolder
from kdzoo.errors import InputError, unknown

if TYPE_CHECKING:
    import pandas as pd


class TableFormat(StrEnum):
    """How a table of results is printed."""

    table = "table"
    csv = "csv"
    md = "md"
    latex = "latex"
    json = "json"


Kind = Annotated[TableFormat, typer.Option("--format", help="How the table is printed.")]
Sort = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Order by a column of the CSV, lowest first; -COLUMN (as --sort=-COLUMN) for highest.")
]
Filter = Annotated[
    str | None,
    typer.Option("--filter", metavar="EXPRESSION", help="Rows to show, over columns of the CSV: \"method != 'none' and n >= 3\"."),
]


def leaderboard(
    bench: Annotated[str, typer.Argument(help="A bench's name below --results, or its folder.")],
    results: ResultsFolder = Path("results"),
    how: Kind = TableFormat.table,
    sort: Sort = None,
    only: Filter = None,
) -> int:
    """Rebuild a bench's runs.csv, leaderboard.csv and leaderboard.md from its run folders, and show the leaderboard.

    The files are the same byte for byte however often that is done; --sort and --filter change what is shown, never
    the files.

    \b
    Examples:
      kdzoo leaderboard digits
      kdzoo leaderboard results/digits --format latex --filter "phase == 'sweep'"
    """
    print_leaderboard(bench_folder(bench, results), how, sort, only)
    return 0


def print_leaderboard(folder: Path, how: TableFormat = TableFormat.table, sort: str | None = None, only: str | None = None) -> None:
    """Write a bench's tables and print its leaderboard."""
    from kdzoo.suite.leaderboard import as_csv, as_markdown, display_frame, write_tables
    from kdzoo.suite.report import leaderboard_view

    board, bench = write_tables(folder)
    board = arranged(board, sort, only)
    match how:
        case TableFormat.table:
            console().print(leaderboard_view(bench, board, console().width))
        case TableFormat.csv:
            print(as_csv(board).decode(), end="")
        case TableFormat.md:
            print(as_markdown(bench, board), end="")
        case TableFormat.latex:
            print(display_frame(board).to_latex(index=False, escape=True), end="")
        case TableFormat.json:
            print(json.dumps(json.loads(board.to_json(orient="records")), indent=1))


def arranged(frame: pd.DataFrame, sort: str | None, only: str | None) -> pd.DataFrame:
    """The rows that an expression picks, ordered by a column; raises InputError for what names no column."""
    if only is not None:
        try:
            frame = frame.query(only, engine="python")
        except Exception as error:  # pandas raises whatever its parser and the columns' own operators do
            raise InputError(f"--filter {only!r}: {type(error).__name__}: {error}; columns: {', '.join(frame.columns)}") from error
    if sort is None:
        return frame
    column = sort.removeprefix("-")
    if column not in frame:
        raise InputError(unknown("--sort", column, frame.columns, show=60))
    return frame.sort_values(column, ascending=not sort.startswith("-"), kind="stable")
