"""Seconds until a run reaches an accuracy, read from its folder, and a short run that is to reach the published one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdzoo.runs.metrics_file import number_in, read_lines
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.store import RunFolder, Store, teacher_store
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.report.published import published_in
from kdzoo.suite.run.train_runs import train_runs
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.training.train import Stopped

Record = dict[str, Any]
PAIR, METHOD, TABLE = "resnet56/resnet20", "hinton", "crd"
"""whose published accuracy is asked for, and the table that has it"""
RECIPE = Path(__file__).with_name("cifar60.yaml")
EPOCHS = 60


def published_accuracy() -> float:
    """Test top-1 of the pair's plain KD in the table, in per cent."""
    (row,) = [row for row in published_in(TABLE) if (row.pair, row.data, row.method) == (PAIR, "cifar100", METHOD)]
    return row.value


def time_to_accuracy(folder: RunFolder, asked: float) -> Record:
    """Seconds of training until a run reaches an accuracy in per cent.

    val: the first epoch whose validation top-1 reaches it, None where none does, or where nothing is held out. test: the last epoch,
    the only one that is judged on the test images, with all seconds of the run; None for a run that is not done. Seconds are
    the run's own, the teacher's training is not in them; of runs that were trained together each has its share.
    """
    values = [(line, number_in(line.get("val"), "top1")) for line in read_lines(folder.metrics, folder.id)]
    first = next((line for line, top1 in values if top1 is not None and 100 * top1 >= asked), None)
    result = folder.result() if folder.state() == "done" else None
    found = {"asked": asked, "val": first and _at(first, 100 * first["val"]["top1"]), "test": None}
    if result is not None:
        top1 = 100 * result["last"]["test"]["top1"]
        found["test"] = {**_at({**result["last"], "seconds": result["seconds"]}, top1), "reached": top1 >= asked}
    return found


def _at(line: Record, top1: float) -> Record:
    return {"epoch": line["epoch"], "seconds": line["seconds"], "top1": top1}


def short_run(pair: str, changes: Record, options: WorkerOptions, data: Path, work: Path, stop: Callable[[], bool]) -> Record:
    """Plain KD by the short recipe under a teacher by the same recipe, both trained here until `stop` says so.

    changes: of keys of the recipe. In bfloat16 on a GPU, and in float32 on a CPU, most of which have no instructions for bfloat16.
    """
    words = {"data": "cifar100", "data_root": str(data), "pairs": pair, "methods": METHOD, "temperatures": "4", "seeds": "1"}
    changes = {**changes, "recipe.precision": "float32" if options.device == "cpu" else "bfloat16"}
    results = {"recipe": str(RECIPE), "results": str(work / "accuracy"), "name": "accuracy", "refit": False, "set": changes}
    made = plan(bench_config({**words, **results}, None))
    (student,) = [one for one in made.students if one.run.teacher is not None]
    teachers = [
        (teacher_store(), teacher.run, teacher.about, options.model_copy(update={"keep": ("student",)}))
        for teacher in made.teachers.values()
    ]
    try:
        for store, run, about, own in [*teachers, (made.store, student.run, student.about, options)]:
            store.run(run.id).plan(run, about)
            train_runs(store, [run.id], own, WorkerState(), lambda _: None, stop)
    except Stopped:
        pass  # what was reached until then is told below
    return {
        "pair": pair,
        "recipe": RECIPE.name,
        "epochs": student.run.recipe.epochs,
        "teachers": [record_of(store, run.id) for store, run, *_ in teachers],
        "time_to_accuracy": time_to_accuracy(made.store.run(student.run.id), published_accuracy()),
    }


def record_of(store: Store, run_id: str) -> Record:
    """A run's epochs so far, its seconds, and its accuracy on the test images in per cent where it is done."""
    folder = store.run(run_id)
    lines = read_lines(folder.metrics, run_id)
    test = time_to_accuracy(folder, 0.0)["test"]
    seconds = lines[-1]["seconds"] if lines else 0.0
    return {"id": run_id, "epochs": len(lines), "seconds": seconds, "test_top1": test and test["top1"]}
