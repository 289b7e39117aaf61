"""Benches that are planned and written in this process, with teachers that are trained once, however many tests ask for them."""

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.store import teacher_store
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.run.train_runs import train_runs
from kdzoo.suite.run.worker_state import WorkerState


def written_bench(folder: Path, **options: Any) -> Plan:
    """A bench on some of the digits, with the files of its runs and its trained teacher; what options do not say is small."""
    given = {
        "results": str(folder),
        "name": "b",
        "data": "digits",
        "pairs": "digits",
        "recipe": "digits",
        "epochs": 2,
        "limit": 300,
        "seeds": "1",
        "methods": "hinton",
        **options,
        "set": {"teacher_recipe.epochs": 15, **options.get("set", {})},
    }
    made = plan(bench_config(given, None))
    for student in made.students:
        made.store.run(student.run.id).plan(student.run, student.about)
    train_teachers(made)
    return made


@cache
def _trained() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="kdzoo-teachers-")


def train_teachers(made: Plan) -> None:
    """Train a plan's teachers into this test's cache, or copy them: what has the same id has the same weights to the bit."""
    for teacher in made.teachers.values():
        folder = teacher_store().run(teacher.run.id)
        if folder.state() == "done":  # copied over, it would be cut short under a process that has it mapped
            continue
        copy = Path(_trained().name) / folder.id
        if copy.exists():
            shutil.copytree(copy, folder.path, dirs_exist_ok=True)
            continue
        folder.plan(teacher.run, teacher.about)
        train_runs(teacher_store(), [folder.id], WorkerOptions(), WorkerState(), lambda _: None, lambda: False)
        if folder.state() == "done":
            shutil.copytree(folder.path, copy)
