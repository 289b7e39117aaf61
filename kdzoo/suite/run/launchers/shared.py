"""What launchers have in common whose workers are started elsewhere: jobs go into the bench's folder, and events are read from there.

An engine (print, Slurm, Ray) decides only where and when workers begin. What they do is `kdzoo work`, on one job's folder: any
number of workers may be given the same folder, at any time and again. Free of torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from kdzoo.runs.events import JobEnded, JobRefused, TeacherFailed, WorkerDied, of_worker
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.run.claim import driving
from kdzoo.suite.run.job_queue import JobQueue
from kdzoo.suite.run.launchers.launcher import EmitOfJob, LauncherSetup
from kdzoo.suite.run.work_folder import End, EventTail, JobFolder, WorkFolder, is_over

POLL_SECONDS = 0.5


class Engine(Protocol):
    """Starts workers for jobs."""

    def announce(self, folders: Sequence[JobFolder], emit: EmitOfJob) -> None:
        """Tell what a reader has to know of jobs that have just been published."""
        ...

    def start(self, folders: Sequence[JobFolder], processes: int) -> None:
        """Start workers for jobs that may be done now, no more than `processes` at a time where the engine can hold them."""
        ...

    def how_it_ended(self, folder: JobFolder) -> str | None:
        """How the worker of a job ended, where none will come again; None as long as one works, waits or may come."""
        ...

    def stop(self) -> None:
        """End all workers that this engine has started; each writes checkpoints."""
        ...


@dataclass
class OpenJob:
    """A job that has been published and has not ended."""

    job: Job
    folder: JobFolder
    tail: EventTail
    number: int
    is_started: bool = False


class Shared:
    """Publishes jobs and waits for their events, whoever computes them."""

    def __init__(self, setup: LauncherSetup, engine: Engine) -> None:
        self._setup, self._engine = setup, engine
        self._work = WorkFolder.of_bench(setup.bench)
        self._processes = 1
        self._published = 0
        self._driving = ExitStack()

    def run(self, queue: JobQueue, emit: EmitOfJob, stop: Callable[[], bool]) -> None:
        """Publish the jobs of a queue and pass their events on, until all of them have ended."""
        open_jobs: list[OpenJob] = []
        while queue or open_jobs:
            if stop():
                self._engine.stop()
                return
            new = [self._publish(job) for job in queue.take_all()]
            self._engine.announce([one.folder for one in new], emit)
            open_jobs += new
            self._start_ready(open_jobs)
            still_open = [one for one in open_jobs if not self._follow(one, emit)]
            if len(still_open) == len(open_jobs):
                time.sleep(POLL_SECONDS)
            open_jobs = still_open

    def resize(self, processes: int, gpus: Sequence[str]) -> None:
        """Say how many workers may compute at a time. Which GPU each of them has is its engine's to say."""
        self._processes = processes

    def warm_up(self) -> None:
        """Workers begin when there are jobs."""

    def __enter__(self) -> Self:
        self._work.remove_ended()
        self._driving.enter_context(driving(self._work, self._setup.lease_seconds))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._engine.stop()
        self._driving.close()
        self._work.remove_ended()

    def _publish(self, job: Job) -> OpenJob:
        self._published += 1
        folder = self._work.publish(job, self._published, self._setup)
        return OpenJob(job, folder, EventTail(folder), self._published)

    def _start_ready(self, open_jobs: Sequence[OpenJob]) -> None:
        """Start those that wait for no open job."""
        names = {one.job.name for one in open_jobs}
        ready = [one for one in open_jobs if not one.is_started and one.job.waits_for not in names]
        if ready:
            self._engine.start([one.folder for one in ready], self._processes)
        for one in ready:
            one.is_started = True

    def _follow(self, one: OpenJob, emit: EmitOfJob) -> bool:
        """Pass on what is new of a job; whether it has ended."""
        how = self._engine.how_it_ended(one.folder) if one.is_started else None
        end = one.folder.end()  # after the engine was asked: a worker may have written it as its last act
        if not one.folder.exists():  # another driver of this bench has seen its end, or somebody has removed it
            end, how = (End(), None) if is_over(one.job) else (None, f"lost its folder {one.folder.path}")
        elif one.folder.has_damaged_end() and is_over(one.job):  # else a worker does it again
            end = End()
        for event in one.tail.new_events():
            emit(one.job, of_worker(event, one.number))
        if end is not None:
            emit_end(one.job, end, emit)
        elif how is not None:
            emit(one.job, WorkerDied(how, str(one.folder.path.parent)))
        return end is not None or how is not None


def emit_end(job: Job, end: End, emit: EmitOfJob) -> None:
    """Tell how a job ended, as a worker of this machine tells it."""
    if end.refused:
        emit(job, JobRefused(end.refused))
    elif end.failed is not None:
        emit(job, TeacherFailed(end.failed))
    else:
        emit(job, JobEnded())
