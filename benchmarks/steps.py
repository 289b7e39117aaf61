"""200 steps of every method under a teacher that has learnt: no loss is ever NaN, and its own loss falls.

    python benchmarks/steps.py --write results/steps            # on CIFAR-10 (KDZOO_DATA, see kdzoo data), about 20 minutes
    python benchmarks/steps.py --data digits --methods at,crd
    python benchmarks/steps.py --methods rsd,skd --write results/steps   # adds their rows to those that are there

All methods see the same batches and one teacher, on one thread. Each is trained with cross-entropy and its own loss as
published, in one stage. An epoch's line holds the means over its steps, so what a method's own loss was over the first
and over the last steps is what its first and last epoch report. A trained run failed if any of its losses was NaN or
infinite.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from speed_report import machine

from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need
from kdzoo.data.known import data_root
from kdzoo.errors import InputError
from kdzoo.runs.metrics_file import read_lines
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.spec import NetworkSpec, ObjectiveSpec, Run, TermSpec
from kdzoo.runs.store import RunFolder, teacher_store
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.run.train_runs import train_runs
from kdzoo.suite.run.worker_state import WorkerState

STEPS = 200
DISTILLED = "digits_deit"
"""the student of methods that read a distillation token"""

NOT_MEANT_TO_FALL = {
    "bss": "it looks at images that both networks get right, of which there are more as the student learns",
    "cskd": "two images of a class agree best while the student knows nothing",
    "dml": "two networks agree best while neither knows anything",
    "kdcl": "networks agree best while none knows anything",
    "norm": "the factor on its matching rises and falls within its own loss",
}
"""methods whose own loss need not fall, and why"""


FALLS_LATER = {
    "cifar10": {
        "crd_queue": "its queue adds negatives until it is full, and then lags behind embeddings that learn fast; it falls from 14.6 "
        "to 13.5 between the 160th and the 600th step",
    }
}
"""methods whose own loss falls, but not in 200 steps on these data, and why"""

TRIALS: dict[str, dict[str, Any]] = {
    "digits": {
        "pairs": "digits",
        "recipe": "digits",
        "limit": 1400,
        "val_fraction": 0.2,
        "epochs": 10,
        "set": {"recipe.batch_size": 56, "recipe.lr": 0.03, "teacher_recipe.lr": 0.1, "teacher_recipe.epochs": 10},
    },
    "cifar10": {
        "pairs": "resnet20/resnet8",
        "recipe": "crd240",
        "limit": 1422,
        "val_fraction": 0.1,
        "epochs": 10,
        "refit": False,
        "set": {"recipe.lr": 0.02, "teacher_recipe.lr": 0.05, "teacher_recipe.epochs": 80},
    },
}
"""the options of a bench on each data set, whose epochs make 200 steps"""


@dataclass(frozen=True)
class Outcome:
    """A method after its steps. first, last: its own loss, mean over the first and the last epoch; error: why it failed.

    teacher_test_top1, git: how good the teacher was that taught it, and the commit that trained both.
    """

    method: str
    steps: int
    first: float | None
    last: float | None
    test_top1: float | None
    error: str | None
    teacher_test_top1: float
    git: str

    @property
    def fell(self) -> bool:
        return self.first is not None and self.last is not None and self.last < self.first


def own_loss(run: Run, name: str) -> Run:
    """The run with cross-entropy and one method's own loss as published, in one stage."""
    method = REGISTRY.get(name)()
    card = method.card
    term = TermSpec(method=name, version=card.version, hyperparameters=method.model_dump(mode="json"), coefficient=card.published.term)
    changed: dict[str, object] = {"objective": ObjectiveSpec(task=card.published.task, terms=(term,))}
    if Need.DISTILLED in card.needs.student:  # a transformer, which learns nothing in 200 steps of SGD
        changed["student"] = NetworkSpec(name=DISTILLED, classes=run.student.classes)
        changed["recipe"] = run.recipe.model_copy(update={"optimizer": "adamw", "lr": 0.003})
    return run.model_copy(update=changed)


def train(data: str, methods: Sequence[str], folder: Path) -> dict[str, RunFolder]:
    """Train a teacher and a student of every method below `folder`; the folders of their runs."""
    torch.set_num_threads(1)
    usual = {"name": "steps", "methods": "hinton", "temperatures": "4", "seeds": "1", "results": str(folder)}
    asked = {**TRIALS[data], **usual, "data": data}
    made = plan(bench_config(asked, None))
    (planned,) = (p for p in made.students if p.run.teacher is not None)
    for teacher in made.teachers.values():
        teacher_store().run(teacher.run.id).plan(teacher.run, teacher.about)
        train_runs(teacher_store(), [teacher.run.id], WorkerOptions(), WorkerState(), lambda _: None, lambda: False)
    runs = {name: own_loss(planned.run, name) for name in methods}
    for run in runs.values():
        made.store.run(run.id).plan(run, planned.about)
    bench = WorkerState()
    for recipe in {str(run.recipe): run.recipe for run in runs.values()}.values():
        cohort = [run.id for run in runs.values() if run.recipe == recipe]
        train_runs(made.store, cohort, WorkerOptions(keep=()), bench, lambda _: None, lambda: False)
    return {name: made.store.run(run.id) for name, run in runs.items()}


def outcome(name: str, folder: RunFolder, teacher_test_top1: float, git: str) -> Outcome:
    """What a trained run came to."""
    if folder.state() != "done":
        return Outcome(name, len(read_lines(folder.metrics, folder.id)), None, None, None, folder.failure().error, teacher_test_top1, git)
    lines = read_lines(folder.metrics, folder.id)
    first, last = (float(line["parts"][name]) for line in (lines[0], lines[-1]))
    return Outcome(name, int(lines[-1]["step"]), first, last, float(folder.result()["last"]["test"]["top1"]), None, teacher_test_top1, git)


def excused(data: str) -> dict[str, str]:
    """The methods whose own loss need not fall in 200 steps on these data, and why."""
    return NOT_MEANT_TO_FALL | FALLS_LATER.get(data, {})


def table(outcomes: Sequence[Outcome], data: str) -> str:
    """A row a method, as Markdown."""
    steps = STEPS // TRIALS[data]["epochs"]
    head = ["method", f"own loss, first {steps} steps", f"last {steps} steps", "fell", "test top-1"]
    rows = [head, ["---"] * len(head)]
    for one in outcomes:
        if one.error is not None:
            rows.append([one.method, "", "", f"failed: {one.error}", ""])
        else:
            fell = "yes" if one.fell else f"no: {excused(data).get(one.method, 'and it should have')}"
            rows.append([one.method, f"{one.first:.4g}", f"{one.last:.4g}", fell, f"{100 * (one.test_top1 or 0):.1f}"])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def words(data: str, record: Mapping[str, Any], outcomes: Sequence[Outcome]) -> str:
    """The whole page of the results."""
    where = record["machine"]
    teachers = " and ".join(f"{100 * top1:.1f}" for top1 in sorted({one.teacher_test_top1 for one in outcomes}))
    commits = ", ".join(dict.fromkeys(one.git for one in outcomes))
    return (
        f"# {STEPS} steps of every method on {data}\n\n{where['device']}, one thread, torch {where['torch']}, commits {commits}; their "
        f"teachers reach {teachers} % on the test images. Cross-entropy and the method's own loss as published, in one stage, also where a "
        f"bench trains a pretrain stage before. {STEPS} steps rank nothing. `python benchmarks/steps.py --data {data} --write "
        "results/steps`\n\n" + table(outcomes, data)
    )


def with_earlier(outcomes: Sequence[Outcome], file: Path) -> list[Outcome]:
    """These outcomes, and those of the zoo's other methods in a file of results, by name."""
    earlier = json.loads(file.read_text())["methods"] if file.exists() else []
    kept = {one["method"]: Outcome(**one) for one in earlier if one["method"] in REGISTRY.own_names()}
    return sorted({**kept, **{one.method: one for one in outcomes}}.values(), key=lambda one: one.method)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar10", choices=sorted(TRIALS), help="where (default: %(default)s)")
    parser.add_argument("--methods", help="names, joined with commas (default: the whole zoo)")
    parser.add_argument("--write", type=Path, help="a folder for DATA.json and DATA.md")
    given = parser.parse_args()
    names = given.methods.split(",") if given.methods else REGISTRY.names_for_images()
    try:
        for name in names:
            REGISTRY.get(name)
        with tempfile.TemporaryDirectory() as folder:
            os.environ["KDZOO_DATA"] = str(data_root(None))  # data sets stay where they are while the cache moves
            os.environ["KDZOO_CACHE"] = folder
            folders = train(given.data, names, Path(folder))
            taught = next(r for r in (run.result() for run in folders.values() if run.state() == "done") if r["teacher"] is not None)
            top1, where = float(taught["teacher"]["test"]["top1"]), machine(torch.device("cpu"), 1)
            outcomes = [outcome(name, run, top1, where["git"]) for name, run in folders.items()]
        record = {"machine": where, "data": given.data}
        print(words(given.data, record, outcomes))
        if given.write:
            given.write.mkdir(parents=True, exist_ok=True)
            file = given.write / f"{given.data}.json"
            rows = with_earlier(outcomes, file) if given.methods else outcomes
            file.write_text(json.dumps({**record, "methods": [asdict(one) for one in rows]}, indent=1) + "\n")
            file.with_suffix(".md").write_text(words(given.data, record, rows))
    except InputError as error:
        sys.exit("\n".join(error.problems))
    if any(one.error is not None or not (one.fell or one.method in excused(given.data)) for one in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
