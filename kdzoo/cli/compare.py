"""`kdzoo compare`: benches, tables and runs beside each other. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from kdzoo.cli import complete
from kdzoo.cli.declare import argument, option
from kdzoo.cli.lookup import RUN_ID, bench_folder, find_all, run_folder, search_hint
from kdzoo.cli.lookup import benches as known_benches
from kdzoo.cli.options import AsJson, ResultsFolder
from kdzoo.cli.output import console, print_message, print_view
from kdzoo.cli.table_options import Columns, Filter, Sort, TableFormat, TableFormatOption, filter_and_sort
from kdzoo.errors import InputError


def compare(
    benches: Annotated[
        list[str] | None,
        argument(
            "Names of benches below --results, their folders, or CSV files; the first is the base.",
            default="none",
            names_of=complete.benches_or_runs,
            metavar="BENCHES",
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
    output_format: TableFormatOption = TableFormat.table,
    as_json: AsJson = False,
    sort: Sort = None,
    only: Filter = None,
    columns: Columns = None,
) -> int:
    """Put benches beside each other: differences to the first with 95 % intervals, and warnings where protocols differ.

    With --published a bench stands beside the literature's tables instead, row by row, with a mark for everything that
    differs: other pixels, epochs or training images, the best epoch on the test set, one seed, another teacher.

    With the ids of two runs, these two models are compared on the test images instead, by their kept predictions.

    A CSV file needs the columns method and top1 (or test_top1; for another task, its headline metric), and may have seed, or n and sd:
    a published table, or another suite's.

    \b
    Examples:
      kdzoo compare digits digits-refit
      kdzoo compare results/mine paper.csv --format md --filter method=crd
      kdzoo compare hinton-0123456789ab none-0123456789ab
      kdzoo compare cifar100 --published
    """
    if not benches:
        names = [folder.name for folder in known_benches(results)]
        raise InputError(f"compare: name two or more benches; {f'{results} has: ' + ', '.join(names) if names else search_hint(results)}")
    if published:
        return print_published(benches, results, TableFormat.json if as_json else output_format, sort, only, columns)
    if len(benches) == 2 and all(RUN_ID.match(name) for name in benches):
        from kdzoo.suite.report.two_models import compare_models

        print(compare_models(run_folder(benches[0], results), run_folder(benches[1], results)))
        return 0
    from kdzoo.suite.report.columns import ALL_COLUMNS, columns_of
    from kdzoo.suite.report.compare import compare as joined
    from kdzoo.suite.report.comparison_text import comparison_sections
    from kdzoo.suite.report.render import render
    from kdzoo.suite.report.terminal import comparison_view

    comparison = joined(find_all(benches, results, _side))
    frame = filter_and_sort(comparison.frame, sort, only, comparison.task)
    output_format = TableFormat.json if as_json else output_format
    if output_format is TableFormat.table:
        tables = comparison_sections(frame, comparison.names, comparison.task.headline)
        print_view(comparison_view(tables, comparison.names, comparison.task.headline, console().width, columns))
    else:
        print(render(columns_of(frame, columns or ALL_COLUMNS), output_format, comparison.task).rstrip("\n"))
    for warning in comparison.warnings:
        print_message(f"warning: {warning}")
    return 0


def print_published(
    benches: list[str], results: Path, output_format: TableFormat, sort: str | None, only: list[str] | None, columns: str | None
) -> int:
    """Print the rows of benches beside the published numbers of their pairs and methods."""
    from kdzoo.suite.report.bench import read_bench
    from kdzoo.suite.report.beside import beside
    from kdzoo.suite.report.beside_text import beside_sections, legend
    from kdzoo.suite.report.columns import ALL_COLUMNS, columns_of
    from kdzoo.suite.report.published import TASK, published
    from kdzoo.suite.report.render import render
    from kdzoo.suite.report.terminal import beside_view

    comparison = beside([read_bench(folder) for folder in find_all(benches, results, bench_folder)], published())
    frame = filter_and_sort(comparison.frame, sort, only, TASK)
    if output_format is TableFormat.table:
        marks = [f"{letter}  {mark}" for letter, mark in legend(frame)]
        print_view(beside_view(beside_sections(frame), [*marks, *comparison.notes], console().width, columns))
        return 0
    print(render(columns_of(frame, columns or ALL_COLUMNS), output_format, TASK).rstrip("\n"))
    for note in comparison.notes:
        print_message(note)
    return 0


def _side(name: str, results: Path) -> Path:
    return Path(name) if name.endswith(".csv") else bench_folder(name, results)
