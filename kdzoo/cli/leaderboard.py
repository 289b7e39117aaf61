"""`kdzoo leaderboard`: a bench's tables. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from kdzoo.cli.declare import option
from kdzoo.cli.lookup import choose_bench
from kdzoo.cli.options import AsJson, OneBench, ResultsFolder
from kdzoo.cli.output import console, print_view
from kdzoo.cli.table_options import Columns, Filter, Sort, TableFormat, TableFormatOption, filter_and_sort
from kdzoo.errors import InputError, raise_if_any
from kdzoo.text import one_line

if TYPE_CHECKING:
    from kdzoo.suite.report.table_files import Tables

PerClass = Annotated[
    bool,
    option("--per-class", text="Show the number of test errors in each class, averaged over seeds.", default="off"),
]

Surface = Annotated[
    str | None,
    option(
        "--surface",
        text="Show one method's sweep as a grid: validation mean and spread over seeds, with the chosen cell marked.",
        metavar="METHOD",
        default="off",
    ),
]
AxesOfSurface = Annotated[
    str | None,
    option(
        "--axes",
        text="What varies down and across the grid of --surface, such as temperature,dose: alpha, weight, dose or fields of the method.",
        metavar="ROWS,COLUMNS",
        default="those that were varied, the temperature first",
    ),
]


def leaderboard(
    bench: OneBench = None,
    results: ResultsFolder = Path("results"),
    output_format: TableFormatOption = TableFormat.table,
    as_json: AsJson = False,
    sort: Sort = None,
    only: Filter = None,
    columns: Columns = None,
    per_class: PerClass = False,
    surface: Surface = None,
    axes: AxesOfSurface = None,
) -> int:
    """Rebuild a bench's runs.csv, leaderboard.csv and leaderboard.md from its run folders, and show the leaderboard.

    A table shows the columns that fit, and names those that do not. The files are the same byte for byte however often
    they are rebuilt; --sort, --filter and --columns change what is shown, never the files.

    \b
    Examples:
      kdzoo leaderboard digits
      kdzoo leaderboard digits --columns "setting,test top-1,vs KD,gap closed"
      kdzoo leaderboard results/digits --format latex --filter phase=sweep
      kdzoo leaderboard digits --per-class
      kdzoo leaderboard digits --surface hinton
      kdzoo leaderboard digits --surface at --axes power,dose
    """
    raise_if_any(
        [
            "axes: they are those of --surface METHOD" if axes is not None and surface is None else None,
            "surface: not together with --per-class" if surface is not None and per_class else None,
        ]
    )
    folder, output_format = choose_bench(bench, results, "leaderboard"), TableFormat.json if as_json else output_format
    if per_class:
        print_per_class(folder, output_format, sort, only, columns)
    elif surface is not None:
        print_surface(folder, surface, axes, output_format, sort, only, columns)
    else:
        from kdzoo.suite.report.table_files import write_tables

        print_leaderboard(write_tables(folder), output_format, sort, only, columns)
    return 0


def print_leaderboard(
    tables: Tables,
    output_format: TableFormat = TableFormat.table,
    sort: str | None = None,
    only: list[str] | None = None,
    columns: str | None = None,
) -> None:
    """Print the leaderboard of a bench with the verdict, from its tables as they were written."""
    from kdzoo.suite.report.columns import ALL_COLUMNS, columns_of, selected
    from kdzoo.suite.report.markdown import as_markdown
    from kdzoo.suite.report.render import render
    from kdzoo.suite.report.sections import sections
    from kdzoo.suite.report.terminal import leaderboard_view

    bench = tables.bench
    board = filter_and_sort(tables.board, sort, only, bench.task)
    match output_format:
        case TableFormat.table:
            print_view(leaderboard_view(bench, board, console().width, columns))
        case TableFormat.md:
            print(as_markdown(bench, board, columns or ALL_COLUMNS), end="")
        case TableFormat.latex:
            for title, frame in sections(bench, board):
                print(f"% {one_line(title)}")
                print(render(selected(frame, columns or ALL_COLUMNS, bench.task.headline), output_format, bench.task), end="\n\n")
        case _:
            print(render(columns_of(board, columns or ALL_COLUMNS), output_format, bench.task).rstrip("\n"))


def print_per_class(folder: Path, output_format: TableFormat, sort: str | None, only: list[str] | None, columns: str | None) -> None:
    """Print the test errors of a bench class by class."""
    from kdzoo.suite.report.bench import read_bench
    from kdzoo.suite.report.columns import ALL_COLUMNS, columns_of
    from kdzoo.suite.report.per_class import per_class_frame, per_class_sections
    from kdzoo.suite.report.render import render
    from kdzoo.suite.report.terminal import per_class_view

    bench = read_bench(folder)
    frame = filter_and_sort(per_class_frame(bench), sort, only, bench.task)
    if output_format in (TableFormat.csv, TableFormat.json):
        print(render(columns_of(frame, columns or ALL_COLUMNS), output_format, bench.task).rstrip("\n"))
        return
    sections = [(title, columns_of(part, columns or ALL_COLUMNS)) for title, part in per_class_sections(bench, frame)]
    if output_format is TableFormat.table:
        print_view(per_class_view(sections, console().width))
    else:
        for title, part in sections:
            print(f"## {title}\n" if output_format is TableFormat.md else f"% {one_line(title)}")
            print(render(part, output_format, bench.task))


def print_surface(
    folder: Path, method: str, axes: str | None, output_format: TableFormat, sort: str | None, only: list[str] | None, columns: str | None
) -> None:
    """Print the sweep of a method as grids; as CSV and JSON one row per setting."""
    from kdzoo.suite.report.bench import read_bench
    from kdzoo.suite.report.columns import ALL_COLUMNS, columns_of
    from kdzoo.suite.report.render import render
    from kdzoo.suite.report.swept import parse_axes, swept_frame
    from kdzoo.suite.report.swept_text import swept_grids
    from kdzoo.suite.report.terminal import grids_view

    asked_axes = None if axes is None else parse_axes(axes)
    bench = read_bench(folder)
    frame = filter_and_sort(swept_frame(bench, method, asked_axes), sort, only, bench.task)
    if output_format in (TableFormat.csv, TableFormat.json):
        print(render(columns_of(frame, columns or ALL_COLUMNS), output_format, bench.task).rstrip("\n"))
        return
    if not len(frame):
        raise InputError(f"surface: no setting of {method} meets --filter {' '.join(only or [])}")
    grids = swept_grids(bench, frame)
    if output_format is TableFormat.table:
        print_view(grids_view(grids, console().width))
    else:
        for grid in grids:
            print(f"## {grid.title}\n" if output_format is TableFormat.md else f"% {one_line(grid.title)}")
            print(render(grid.cells, output_format, bench.task))
            print("".join(f"\n{note}\n" if output_format is TableFormat.md else f"% {note}\n" for note in grid.notes))
