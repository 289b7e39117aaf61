"""`kdzoo plot`: the charts of a bench's page as files. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from kdzoo.cli import complete
from kdzoo.cli.declare import option
from kdzoo.cli.lookup import choose_bench
from kdzoo.cli.options import OneBench, ResultsFolder
from kdzoo.cli.output import print_message, print_text
from kdzoo.cli.table_options import Filter
from kdzoo.suite.page.chart_kind import ChartKind


def plot(
    bench: OneBench = None,
    *,
    kind: Annotated[ChartKind, option("--kind", text=f"{', '.join(ChartKind)}.", metavar="KIND", names_of=complete.of(*ChartKind))],
    output: Annotated[Path, option("--output", "-o", text="The file to write: FILE.svg, FILE.png or FILE.pdf.", metavar="FILE")],
    results: ResultsFolder = Path("results"),
    only: Filter = None,
) -> int:
    """Draw the charts of one kind that `kdzoo report` shows into a file, with their numbers beside it as CSV.

    \b
    surface      heat map of a sweep: validation mean, spread, the chosen cell, how often seeds would choose it
    slices       the sweep along each axis
    forest       differences to tuned KD with intervals
    pareto       accuracy against each cost
    curves       learning curves of chosen settings and controls
    classes      gains in each class over the student alone
    reliability  confidence against accuracy, of runs that kept predictions
    agreement    accuracy against agreement with the teacher

    \b
    Examples:
      kdzoo plot digits --kind forest -o forest.pdf
      kdzoo plot digits --kind surface --filter method=hinton -o surface.svg
    """
    folder = choose_bench(bench, results, "plot")
    from kdzoo.suite.page.kinds import KINDS
    from kdzoo.suite.page.plot import write_plot
    from kdzoo.suite.page.tables import tables_of

    tables = tables_of(folder)
    table = write_plot(tables, kind, output, only or ())
    for omission in KINDS[kind].omissions(tables):
        print_message(f"note: {omission}")
    print_text(f"plot: {output}, with its numbers in {table}")
    return 0
