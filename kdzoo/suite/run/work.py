"""What a job does, in this process or in a worker: there is one code path."""

from __future__ import annotations

from collections.abc import Callable

import torch

from kdzoo.models.kernels import set_kernels
from kdzoo.runs.events import Emit
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.run.measure_doses import measure_doses
from kdzoo.suite.run.train_runs import train_runs
from kdzoo.suite.run.train_teacher import check_teacher, train_teacher
from kdzoo.suite.run.worker_state import WorkerState


def work(job: Job, state: WorkerState, emit: Emit, stop: Callable[[], bool]) -> None:
    """Do a job.

    Raises InputError for a teacher that must not teach, WorkFailed for one whose training failed, and StoreError for a
    folder that cannot be written.
    """
    set_kernels(job.options)
    if job.kind == "teacher":
        train_teacher(job, state, emit, stop)
        check_teacher(job, state, emit)
    elif job.kind == "doses":
        torch.set_num_threads(job.options.threads)
        measure_doses(job, state, emit, stop)
    else:
        torch.set_num_threads(job.options.threads)
        train_runs(job.store, job.ids, job.options, state, emit, stop)
