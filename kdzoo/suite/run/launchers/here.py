"""The launcher `here`: jobs one after the other in this process, for networks and methods that exist only in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from kdzoo.contract.settings import current_settings, put_back
from kdzoo.runs.events import JobEnded
from kdzoo.suite.run.followers import TorchrunFollowers
from kdzoo.suite.run.job_queue import JobQueue
from kdzoo.suite.run.launchers.launcher import EmitOfJob
from kdzoo.suite.run.work import work
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.training.located import Modules
from kdzoo.training.train import Stopped

POLL_SECONDS = 0.2


class Here:
    """Computes jobs in this process, whose global settings of torch are afterwards as they were.

    followers: processes that train with it, where something else has started them.
    """

    def __init__(self, modules: Modules | None = None, followers: TorchrunFollowers | None = None) -> None:
        self._state = WorkerState(modules or Modules(), followers=followers)

    def run(self, queue: JobQueue, emit: EmitOfJob, stop: Callable[[], bool]) -> None:
        before = current_settings()
        try:
            while queue:
                job = queue.take()
                if job is None:  # what is left is locked by another process
                    time.sleep(POLL_SECONDS)
                    continue
                try:
                    work(job, self._state, partial(emit, job), stop)
                except Stopped:
                    return
                emit(job, JobEnded())
        finally:
            put_back(before)

    def resize(self, processes: int, gpus: Sequence[str]) -> None:
        """There is one process, and it uses the devices that it sees."""

    def warm_up(self) -> None:
        """Nothing has to start."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing has to end."""
