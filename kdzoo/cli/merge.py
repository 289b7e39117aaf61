"""`kdzoo merge`: benches of several machines as one. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from kdzoo.cli import complete
from kdzoo.cli.declare import argument, option
from kdzoo.cli.lookup import bench_folder, find_all
from kdzoo.cli.options import JsonOnly, ResultsFolder
from kdzoo.cli.output import print_json, print_message
from kdzoo.cli.training import print_lines
from kdzoo.errors import InputError
from kdzoo.text import number_of


def merge(
    folders: Annotated[
        list[str],
        argument("Benches by name or folder, and CSV files of reported rows.", metavar="FOLDERS", names_of=complete.bench_names),
    ],
    out: Annotated[Path, option("--out", "-o", text="The folder of the merged bench; it must be new or empty.", metavar="FOLDER")],
    results: ResultsFolder = Path("results"),
    as_json: JsonOnly = False,
) -> int:
    """Merge benches, run by run, into one whose rows say which of them were measured twice.

    A run that several benches have is kept once, as it was first finished, and the others are counted as its replicas:
    where the model and the capability of the CPU, torch build and number of threads are the same their numbers have to be
    the same to the last bit, elsewhere their test and validation results within 3 sqrt(2) standard deviations, known from
    five seeds or more. Anything else stops the merge, and so do two versions of a method or of the engine in one table. A
    row is measured, or verified where a run of it was trained again and agreed; numbers of papers, from CSV files with the
    columns method and top1, are reported, in a table of their own.

    \b
    Examples:
      kdzoo merge results/mine results/theirs -o results/ours
      kdzoo merge digits other-machine/digits paper.csv -o merged --json
    """
    from kdzoo.suite.proof.merge import merge as merge_benches
    from kdzoo.suite.proof.reference import reference_points

    tables = [Path(name) for name in folders if name.endswith(".csv")]
    benches = find_all([name for name in folders if not name.endswith(".csv")], results, bench_folder)
    if not benches:
        raise InputError("merge: name at least one bench")
    merged, notes = merge_benches(benches, tables, out, reference_points())
    if as_json:
        print_json({"folder": str(out), **merged.model_dump(mode="json"), "notes": notes})
        return 0
    for note in notes:
        print_message(f"note: {note}")
    count = sum(map(len, merged.replicas.values()))
    print_lines(
        [f"{out}: {number_of(len(merged.runs), 'run')} of {number_of(len(benches), 'bench', 'benches')}, {number_of(count, 'replica')}"]
    )
    return 0
