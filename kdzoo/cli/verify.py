"""`kdzoo verify`: a sample of a bench's runs trained again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from kdzoo.cli import complete
from kdzoo.cli.bench_options import read_options, takes_options
from kdzoo.cli.declare import argument, option
from kdzoo.cli.lookup import bench_folder
from kdzoo.cli.options import DataRoot, JsonOnly, Plugins, ResultsFolder
from kdzoo.cli.output import print_json
from kdzoo.cli.training import open_launcher, print_lines, train_plan
from kdzoo.errors import raise_if_any
from kdzoo.runs.options import PAIR, RUNNING
from kdzoo.text import number_of

if TYPE_CHECKING:
    from kdzoo.suite.plan.jobs import Outcome
    from kdzoo.suite.report.verified_file import Verification
    from kdzoo.suite.run.prepare import Prepared

STATUS = {"agrees": 0, "disagrees": 1, "not comparable": 2}
"""the exit status of each verdict"""
SEVERAL = {"agrees": "agree", "disagrees": "disagree", "not comparable": "not comparable"}
"""the verdict of several runs, in words"""


@takes_options("device", "jobs", before="results")
def verify(
    bench: Annotated[str, argument("A bench's name below --results, or its folder.", metavar="BENCH", names_of=complete.bench_names)],
    sample: Annotated[int, option("--sample", text="How many runs to train again.", default="3", metavar="K")] = 3,
    seed: Annotated[
        int | None, option("--seed", text="Draw the runs that this seed draws.", default="a new one, which is printed", metavar="N")
    ] = None,
    run: Annotated[
        list[str] | None,
        option("--run", text="Train this run again in any case (repeatable).", default="none", metavar="ID", names_of=complete.runs),
    ] = None,
    train_teacher: Annotated[
        bool, option("--train-teacher", text="Train teachers again even if their weights are at hand.", default="off", panel=RUNNING)
    ] = False,
    data: Annotated[
        str | None,
        option(
            "--data", text="Where the images are on this machine, such as folder:PATH.", default="as recorded", panel=PAIR, metavar="NAME"
        ),
    ] = None,
    data_root: DataRoot = None,
    plugin: Plugins = None,
    results: ResultsFolder = Path("results"),
    as_json: JsonOnly = False,
    **execution: Any,
) -> int:
    """Check a bench: its files, its controls against reference points, and a sample of its runs by training them again.

    Where the model and the capability of the CPU, torch build and number of threads are the same, all numbers have to be
    the same to the last bit. Elsewhere the test and validation results have to lie within 3 sqrt(2) standard deviations,
    known from five seeds or more. A teacher is trained again, unless weights of the recorded digest are at hand. The
    outcome is added to verified.json in the bench's folder. The same --seed continues after an interruption.

    Exit codes here: 0 agrees, 1 disagrees, 2 nothing could be compared.

    \b
    Examples:
      kdzoo verify digits
      kdzoo verify results/digits --sample 3 --seed 7
      kdzoo verify mine --run at-137fc535e1a5 --sample 0 --json
    """
    raise_if_any([f"sample: expected a number >= 0, got {sample}" if sample < 0 else None])
    folder = bench_folder(bench, results)
    from kdzoo.suite.proof.retrain import Elsewhere
    from kdzoo.suite.proof.sample import new_seed
    from kdzoo.suite.proof.verify import VerifyRequest
    from kdzoo.suite.proof.verify import verify as verify_bench

    options = read_options({**execution, "plugin": plugin})
    request = VerifyRequest(
        folder=folder,
        sample=sample,
        seed=new_seed() if seed is None else seed,
        teachers=train_teacher,
        runs=tuple(run or ()),
        plugins=tuple(plugin or ()),
        where=Elsewhere(options, data, data_root),
    )
    if not as_json:
        print_lines([f"sample: seed {request.seed} (--sample {sample} --seed {request.seed} draws the same runs again)"])
    verification = verify_bench(request, _trainer(quiet=as_json))
    if as_json:
        print_json({"bench": folder.resolve().name, "verdict": verification.verdict, **verification.model_dump(mode="json")})
    else:
        print_lines(lines_of(verification, folder))
    return STATUS[verification.verdict]


def _trainer(*, quiet: bool) -> Any:
    """What trains a plan: with the display of a bench, or without any."""
    from kdzoo.suite.run.train_plan import train_plan as train_jobs

    def train(prepared: Prepared) -> Outcome:
        with open_launcher(prepared.config) as launcher:
            if quiet:
                return train_jobs(prepared, launcher, lambda event: None, retry_failed=True)
            return train_plan(prepared, launcher)

    return train


def lines_of(verification: Verification, folder: Path) -> list[str]:
    """A verification for a reader: a line for every run, control and fault, and the sum."""
    lines = [f"{run.id}: {run.verdict}: {run.text}" for run in verification.runs]
    lines += [f"control {one.what}: {one.verdict}: {one.text}" for one in verification.controls]
    lines += [f"{run_id}: disagrees with itself: {fault}" for run_id, faults in verification.faults.items() for fault in faults]
    counts = {words: sum(run.verdict == verdict for run in verification.runs) for verdict, words in SEVERAL.items()}
    summary = ", ".join(f"{count} {words}" for words, count in counts.items() if count) or "nothing to compare"
    trained = f"{number_of(verification.sample, 'run')} of {verification.of} trained again: {summary}"
    return [*lines, f"{folder.resolve().name}: {verification.verdict} ({trained}); written to {folder / 'verified.json'}"]
