"""`kdzoo report`: benches as one page that needs nothing beside it. Free of torch."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

from kdzoo.cli import complete
from kdzoo.cli.declare import argument, option
from kdzoo.cli.lookup import bench_folder, choose_bench, find_all
from kdzoo.cli.options import ResultsFolder
from kdzoo.cli.output import print_message, print_text
from kdzoo.errors import InputError
from kdzoo.runs.atomic import write_bytes
from kdzoo.runs.output_files import output_file

ENDINGS = (".html", ".htm")


def report(
    benches: Annotated[
        list[str] | None,
        argument(
            "Names of benches below --results, or their folders; several stand side by side.",
            metavar="BENCHES",
            default="the only one below --results",
            names_of=complete.bench_names,
        ),
    ] = None,
    results: ResultsFolder = Path("results"),
    output: Annotated[Path, option("--output", "-o", text="The file to write.", default="report.html", metavar="FILE")] = Path(
        "report.html"
    ),
    show: Annotated[bool, option("--open", text="Open the page in the browser.", default="off")] = False,
) -> int:
    """Write one page about benches: the answer, the leaderboard, heat maps of sweeps, curves, costs, failures, every run.

    The page is one file that opens without a network. Its numbers are those of leaderboard.csv and runs.csv.

    \b
    Examples:
      kdzoo report digits --open
      kdzoo report results/mine results/theirs -o comparison.html
    """
    folders = find_all(benches, results, bench_folder) if benches else [choose_bench(None, results, "report")]
    file = output_file(output)
    if output.suffix.lower() not in ENDINGS:
        raise InputError(f"output: {output}: a page is written as HTML; expected a name that ends in {' or '.join(ENDINGS)}")
    from kdzoo.suite.page.build import build_page

    write_bytes(file, build_page(folders).encode())
    print_text(f"report: {output}")
    if show and not webbrowser.open(output.resolve().as_uri()):
        print_message(f"open: no browser could be started here; open {output} in one yourself")
    return 0
