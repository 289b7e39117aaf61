"""A job that trains a teacher, where that has to be, and checks it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch

from kdzoo.errors import WorkFailed
from kdzoo.models.placement import Placement
from kdzoo.runs.events import Emit, TeacherChecked, emit_notes
from kdzoo.runs.store import RunFolder, Store
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.run.repair import forget_damaged, renew
from kdzoo.suite.run.train_runs import LOCK_POLL_SECONDS, train_runs
from kdzoo.suite.run.worker_state import WorkerState, probe_of
from kdzoo.teachers.checks import notes_on_teacher, refuse_at_chance
from kdzoo.training.located import LocatedRun
from kdzoo.training.train import Stopped


def train_teacher(job: Job, state: WorkerState, emit: Emit, stop: Callable[[], bool]) -> None:
    """Train a teacher, or wait for the process that does, unless it is kept already; raises WorkFailed where that fails."""
    store, options = job.store, job.options.model_copy(update={"threads": job.teacher_threads})
    torch.set_num_threads(options.threads)
    for run_id in job.ids:
        folder = store.run(run_id)
        forget_damaged(folder, emit)
        while not is_kept(folder, emit):
            locked = train_runs(store, (run_id,), options, state, emit, stop)
            if not locked and folder.state() != "done":
                raise WorkFailed(f"teacher {run_id}: its training failed: {folder.failure().error}; --retry-failed trains it again")
            if locked:
                time.sleep(LOCK_POLL_SECONDS)
            if stop():
                raise Stopped("training was stopped; run the same command to resume")


def is_kept(folder: RunFolder, emit: Emit) -> bool:
    """Whether a teacher is done and its weights are whole; what is not is made new again. False while another process has it."""
    with folder.lock() as free:
        if free:
            renew(folder, emit)
        return free and folder.state() == "done"


def check_teacher(job: Job, state: WorkerState, emit: Emit) -> None:
    """Measure a teacher on its first student's data as its students will; raises InputError where it is at chance."""
    if job.checked_run is not None:
        folder, run_id = job.checked_run
        located = LocatedRun.read(Store(Path(folder)).run(run_id))
    elif job.probes:
        located = probe_of(job.probes[0], job.store)
    else:
        return
    torch.set_num_threads(job.options.threads)
    execution = Placement(job.options)
    dataset, splits = state.data(located, job.options)
    teacher, _ = state.teacher(located, dataset, splits, execution, emit)
    if teacher is not None:
        on_these_images = (teacher, splits, located.run.recipe.augment, execution)
        emit_notes(notes_on_teacher(*on_these_images), emit)  # first: another normalisation is the usual reason for what is refused next
        emit_notes([] if job.options.allow_chance_teacher else refuse_at_chance(*on_these_images), emit)
        head = splits.task.headline.name
        val, test = (None if metrics is None else cast(float, metrics[head]) for metrics in (teacher.val_metrics, teacher.test_metrics))
        emit(TeacherChecked(teacher.name, job.ids, splits.task.name, val, test))
