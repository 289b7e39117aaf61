"""Teachers of plans that are trained in this process: each once, however many tests ask for it."""

import shutil
import tempfile
from functools import cache
from pathlib import Path

from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.store import teacher_store
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.run.train_runs import train_runs
from kdzoo.suite.run.worker_state import WorkerState


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
