"""The jobs that are left, in the order in which they may be taken. Free of torch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from kdzoo.suite.plan.jobs import Job


class JobQueue:
    """Jobs wait here until the job that they come after has ended, and a locked one until its time has come.

    A job counts as ended when all jobs of its name have: those that go on with a part of its runs have its name.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._waiting: list[tuple[float, Job]] = [(0.0, job) for job in jobs]
        self._open = Counter(job.name for _, job in self._waiting)

    def __bool__(self) -> bool:
        """Whether any job is left to take, now or later."""
        return bool(self._waiting)

    def take(self) -> Job | None:
        """Remove and return the first job that may run now; None where there is none."""
        now = time.monotonic()
        for number, (due, job) in enumerate(self._waiting):
            if due <= now and (job.waits_for is None or not self._open[job.waits_for]):
                del self._waiting[number]
                return job
        return None

    def take_all(self) -> list[Job]:
        """Remove and return all jobs whose time has come, those too that come after others: for who keeps that order himself."""
        now = time.monotonic()
        due = [job for at, job in self._waiting if at <= now]
        self._waiting = [(at, job) for at, job in self._waiting if at > now]
        return due

    def add(self, job: Job, *, delay: float = 0.0) -> None:
        """Put a job in front of all others, to be taken after `delay` seconds at the earliest."""
        self._waiting.insert(0, (time.monotonic() + delay, job))
        self._open[job.name] += 1

    def end(self, job: Job) -> None:
        """Count a job that was taken as ended."""
        self._open[job.name] -= 1
