"""`kdzoo submit`: what a pull request with new rows needs. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from kdzoo.cli import complete
from kdzoo.cli.declare import argument, option
from kdzoo.cli.lookup import bench_folder
from kdzoo.cli.options import JsonOnly, ResultsFolder
from kdzoo.cli.output import print_json
from kdzoo.cli.training import print_lines
from kdzoo.text import number_of


def submit(
    bench: Annotated[str, argument("A bench's name below --results, or its folder.", metavar="BENCH", names_of=complete.bench_names)],
    author: Annotated[str, option("--author", text="Who answers questions about these rows.", metavar="NAME")],
    out: Annotated[
        Path | None,
        option("--out", "-o", text="The folder to write; it must be new or empty.", default="submissions/BENCH", metavar="FOLDER"),
    ] = None,
    results: ResultsFolder = Path("results"),
    as_json: JsonOnly = False,
) -> int:
    """Pack a finished bench for a pull request: what others need to check its rows and to train them again.

    That is the runs without places of this machine, the records of their teachers (and weights up to 1 MB), predictions of one
    run a row up to 256 kB, the plugins, and the tables. What a reviewer would refuse is refused first: missing runs and
    seeds, results that contradict themselves, a missing control, one that is far from its reference point, runs that are
    not of the edition that the bench was asked to be of.

    \b
    Example:
      kdzoo submit mine --author "A. Name" -o submissions/mine
    """
    from kdzoo.suite.proof.reference import reference_points
    from kdzoo.suite.proof.submit import submit as pack

    folder = bench_folder(bench, results)
    name = folder.resolve().name
    packed = pack(folder, out or Path("submissions") / name, author=author, points=reference_points())
    if as_json:
        controls = [{"what": one.what, "verdict": one.verdict, "text": one.text} for one in packed.controls]
        counts = {"runs": packed.runs, "predictions": packed.predictions, "teachers": packed.teachers}
        print_json({"folder": str(packed.folder), **counts, "edition": packed.edition, "controls": controls})
        return 0
    lines = [f"control {one.what}: {one.verdict}: {one.text}" for one in packed.controls]
    contents = f"{number_of(packed.runs, 'run')}, predictions of {packed.predictions}, {number_of(packed.teachers, 'teacher')}"
    print_lines([*lines, f"{packed.folder}: {contents}; copy it to results/{name} and open a pull request (docs/living-table.md)"])
    return 0
