"""`kdzoo leaderboard` and `kdzoo compare`: a bench's tables, and several benches beside each other. Free of torch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from kdzoo.cli import complete
from kdzoo.cli.lookup import RUN_ID, bench_folder, looked_below, run_folder, the_bench
from kdzoo.cli.lookup import benches as known_benches
from kdzoo.cli.options import AsJson, ResultsFolder, argument, option
from kdzoo.cli.output import console, say
from kdzoo.errors import InputError, noting

if TYPE_CHECKING:
    import pandas as pd


class TableFormat(StrEnum):
    """How a table of results is printed."""

    table = "table"
    csv = "csv"
    md = "md"
    latex = "latex"
    json = "json"


Kind = Annotated[
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
        text="all, or headings of the table between commas; of CSV and JSON, columns of the file.",
        default="as many as fit",
        names_of=complete.of("all"),
    ),
]


PerClass = Annotated[
    bool,
    option("--per-class", text="Show how many test images of each class are named wrongly, in the mean over seeds.", default="off"),
]


def leaderboard(
    bench: Annotated[
        str | None,
        argument(
            "A bench's name below --results, or its folder.",
            metavar="BENCH",
            default="the only one below --results",
            names_of=complete.bench_names,
        ),
    ] = None,
    results: ResultsFolder = Path("results"),
    how: Kind = TableFormat.table,
    as_json: AsJson = False,
    sort: Sort = None,
    only: Filter = None,
    columns: Columns = None,
    per_class: PerClass = False,
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
    """
    folder, how = the_bench(bench, results, "leaderboard"), TableFormat.json if as_json else how
    if per_class:
        print_per_class(folder, how, sort, only, columns)
    else:
        print_leaderboard(folder, how, sort, only, columns)
    return 0


def compare(
    benches: Annotated[
        list[str] | None,
        argument(
            "Names of benches below --results, their folders, or CSV files; the first is the base.",
            default="none",
            names_of=complete.benches_or_runs,
            metavar="BENCH...",
        ),
    ] = None,
    published: Annotated[
        bool,
        option(
            "--published",
            text="Put published numbers of the same pairs and methods beside a bench's rows, marked where protocols differ.",
            default="off",
        ),
    ] = False,
    results: ResultsFolder = Path("results"),
    how: Kind = TableFormat.table,
    as_json: AsJson = False,
    sort: Sort = None,
    only: Filter = None,
    columns: Columns = None,
) -> int:
    """Put benches beside each other: differences to the first with 95 % intervals, and warnings where protocols differ.

    With --published a bench stands beside the literature's tables instead, row by row, with a mark for everything that
    differs: other pixels, epochs or training images, the best epoch on the test set, one seed, another teacher.

    With the ids of two runs, these two models are compared on the test images instead, by their kept predictions.

    A CSV file needs the columns method and top1 (or test_top1), and may have seed, or n and sd: a published table, or
    another suite's.

    \b
    Examples:
      kdzoo compare digits digits-refit
      kdzoo compare results/mine paper.csv --format md --filter method=crd
      kdzoo compare hinton-0123456789ab none-0123456789ab
      kdzoo compare cifar100 --published
    """
    if not benches:
        there = [folder.name for folder in known_benches(results)]
        raise InputError(f"compare: name two or more benches; {f'{results} has: ' + ', '.join(there) if there else looked_below(results)}")
    if published:
        return print_published(benches, results, TableFormat.json if as_json else how, sort, only, columns)
    if len(benches) == 2 and all(RUN_ID.match(name) for name in benches):
        from kdzoo.suite.report.two_models import compare_models

        print(compare_models(run_folder(benches[0], results), run_folder(benches[1], results)))
        return 0
    from kdzoo.suite.report.compare import compare as joined
    from kdzoo.suite.report.compare import comparison_sections, render
    from kdzoo.suite.report.tables import ALL_COLUMNS, columns_of
    from kdzoo.suite.report.terminal import comparison_view

    problems: list[str] = []
    sides: list[Path] = []
    for name in benches:
        with noting(problems):
            sides.append(_side(name, results))
    if problems:
        raise InputError(*problems)
    found = joined(sides)
    frame = arranged(found.frame, sort, only)
    how = TableFormat.json if as_json else how
    if how is TableFormat.table:
        console().print(comparison_view(comparison_sections(frame, found.names), found.names, console().width, columns))
    else:
        print(render(columns_of(frame, columns or ALL_COLUMNS), how).rstrip("\n"))
    for warning in found.warnings:
        say(f"warning: {warning}")
    return 0


def print_published(
    benches: list[str], results: Path, how: TableFormat, sort: str | None, only: list[str] | None, columns: str | None
) -> int:
    """Print the rows of benches beside the published numbers of their pairs and methods."""
    from kdzoo.suite.report.beside import beside, beside_sections, legend
    from kdzoo.suite.report.compare import render
    from kdzoo.suite.report.published import published
    from kdzoo.suite.report.records import read_bench
    from kdzoo.suite.report.tables import ALL_COLUMNS, columns_of
    from kdzoo.suite.report.terminal import beside_view

    problems: list[str] = []
    folders: list[Path] = []
    for name in benches:
        with noting(problems):
            folders.append(bench_folder(name, results))
    if problems:
        raise InputError(*problems)
    found = beside([read_bench(folder) for folder in folders], published())
    frame = arranged(found.frame, sort, only)
    if how is TableFormat.table:
        marks = [f"{letter}  {mark}" for letter, mark in legend(frame)]
        console().print(beside_view(beside_sections(frame), [*marks, *found.notes], console().width, columns))
        return 0
    print(render(columns_of(frame, columns or ALL_COLUMNS), how).rstrip("\n"))
    for note in found.notes:
        say(note)
    return 0


def _side(name: str, results: Path) -> Path:
    return Path(name) if name.endswith(".csv") else bench_folder(name, results)


def print_leaderboard(
    folder: Path,
    how: TableFormat = TableFormat.table,
    sort: str | None = None,
    only: list[str] | None = None,
    columns: str | None = None,
) -> None:
    """Write a bench's tables and print its leaderboard with the verdict."""
    from kdzoo.suite.report.compare import render
    from kdzoo.suite.report.leaderboard import write_tables
    from kdzoo.suite.report.tables import ALL_COLUMNS, as_markdown, columns_of, sections, selected
    from kdzoo.suite.report.terminal import leaderboard_view

    board, bench = write_tables(folder)
    board = arranged(board, sort, only)
    match how:
        case TableFormat.table:
            console().print(leaderboard_view(bench, board, console().width, columns))
        case TableFormat.md:
            print(as_markdown(bench, board, columns or ALL_COLUMNS), end="")
        case TableFormat.latex:
            for _, shown in sections(bench, board):
                print(render(selected(shown, columns or ALL_COLUMNS), how))
        case _:
            print(render(columns_of(board, columns or ALL_COLUMNS), how).rstrip("\n"))


def print_per_class(folder: Path, how: TableFormat, sort: str | None, only: list[str] | None, columns: str | None) -> None:
    """Print the test errors of a bench class by class."""
    from kdzoo.suite.report.compare import render
    from kdzoo.suite.report.per_class import per_class_frame, per_class_sections
    from kdzoo.suite.report.records import read_bench
    from kdzoo.suite.report.tables import ALL_COLUMNS, columns_of
    from kdzoo.suite.report.terminal import sections_view

    bench = read_bench(folder)
    frame = arranged(per_class_frame(bench), sort, only)
    if how in (TableFormat.csv, TableFormat.json):
        print(render(columns_of(frame, columns or ALL_COLUMNS), how).rstrip("\n"))
        return
    sections = [(title, columns_of(shown, columns or ALL_COLUMNS)) for title, shown in per_class_sections(bench, frame)]
    if how is TableFormat.table:
        console().print(sections_view(sections, console().width))
    else:
        for title, shown in sections:
            print(f"## {title}\n" if how is TableFormat.md else f"% {title}")
            print(render(shown, how))


def arranged(frame: pd.DataFrame, sort: str | None, only: list[str] | None) -> pd.DataFrame:
    """The rows that every condition picks, in the order of a column."""
    from kdzoo.suite.report.compare import filtered, sorted_by

    for condition in only or ():
        frame = filtered(frame, condition)
    return frame if sort is None else sorted_by(frame, sort)
