"""Hands jobs to worker processes, isolates what kills them, and stops in good order. Free of torch."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from kdzoo.errors import InputError
from kdzoo.store import Store
from kdzoo.suite.jobs import Event, Handle, Job, Outcome

HANG_SECONDS = 1800.0
"""a worker that says nothing for so long is taken for hung and killed"""
LOCK_RETRY_SECONDS = 1.0
STOP_SECONDS = 60.0


class Worker:
    """A worker process; its events go to a queue that all workers share."""

    def __init__(self, number: int, plugins: Sequence[str], log: Path, events: queue.SimpleQueue[tuple[Worker, Event]]) -> None:
        self.number = number
        self.job: Job | None = None
        self.heard = time.monotonic()
        self.open: set[str] = set()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kdzoo.suite.worker", *plugins],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "OMP_WAIT_POLICY": "passive"},
            )
        threading.Thread(target=self._read, args=(events,), daemon=True).start()

    def _read(self, events: queue.SimpleQueue[tuple[Worker, Event]]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            events.put((self, json.loads(line)))
        events.put((self, {"event": "exit", "code": self.process.wait()}))

    def give(self, job: Job) -> None:
        self.job, self.open, self.heard = job, set(job.ids), time.monotonic()
        self._send(job.to_json())

    def stop(self) -> None:
        """Ask for checkpoints at the next step, and for the end."""
        self._send("stop")
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _send(self, line: str) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # a worker that has just died is noticed by its exit
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()


@dataclass
class Pool:
    """Up to `size` workers, started when there is work for them."""

    size: int
    plugins: Sequence[str]
    logs: Path
    events: queue.SimpleQueue[tuple[Worker, Event]] = field(default_factory=queue.SimpleQueue)
    workers: list[Worker] = field(default_factory=list)

    def warm(self) -> None:
        """Start one worker ahead of its first job: its imports take seconds that planning takes too."""
        if not self.workers:
            self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.close()
        except BaseException:  # a second Ctrl-C: no more waiting for checkpoints, but no process stays behind either
            for worker in self.workers:
                worker.kill()
            raise

    def idle(self) -> Worker | None:
        for worker in self.workers:
            if worker.job is None:
                return worker
        return self._start() if len(self.workers) < self.size else None

    def _start(self) -> Worker:
        number = next(n for n in range(self.size) if all(w.number != n for w in self.workers))
        worker = Worker(number, self.plugins, self.logs / f"worker-{number}.log", self.events)
        self.workers.append(worker)
        return worker

    def close(self) -> None:
        """End all workers in good order: each checkpoints what it trains; kill what does not end in time."""
        for worker in self.workers:
            worker.stop()
            if worker.job is None:
                worker.process.terminate()  # it may still be importing, and has nothing to save
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self.workers:
            try:
                worker.process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                worker.kill()
        self.workers.clear()


def launch(jobs: Iterable[Job], pool: Pool, handle: Handle) -> Outcome:
    """Run the jobs on the pool's workers and pass their events on; how every run came out.

    A process that dies with a cohort is replaced, and the cohort's open runs follow one by one from their checkpoints,
    so that only the run which kills its process again has failed. Raises InputError when a worker refuses a job (a
    teacher at chance, a folder that cannot be written); the others then stop with checkpoints.
    """
    pending = deque(jobs)
    finished: set[str] = set()
    names_left = [job.name for job in pending]
    locked: list[tuple[float, Job]] = []
    deaths: dict[str, int] = {}
    outcome = Outcome()

    def close_job(worker: Worker) -> None:
        assert worker.job is not None
        names_left.remove(worker.job.name)
        if worker.job.name not in names_left:
            finished.add(worker.job.name)
        worker.job = None

    while pending or locked or any(worker.job for worker in pool.workers):
        now = time.monotonic()
        due = [entry for entry in locked if entry[0] <= now]
        for entry in due:
            locked.remove(entry)
            pending.append(entry[1])
        _assign(pending, pool, finished)
        try:
            worker, event = pool.events.get(timeout=0.5)
        except queue.Empty:
            _kill_hung(pool)
            continue
        worker.heard = time.monotonic()
        match event["event"]:
            case "ready":
                pass
            case "idle":
                close_job(worker)
            case "locked":
                assert worker.job is not None
                ids = tuple(event["ids"])
                worker.open -= set(ids)
                if worker.job.kind == "students":
                    names_left.append(worker.job.name)
                    locked.append((time.monotonic() + LOCK_RETRY_SECONDS, worker.job.only(ids)))
                    handle({"event": "waiting", "ids": list(ids), "text": f"another process is training {len(ids)} of these runs"})
            case "refused":
                raise InputError(*event["problems"])
            case "exit":
                pool.workers.remove(worker)
                if worker.job is not None:
                    again = _after_death(worker, event["code"], deaths, outcome, handle)
                    names_left.extend(job.name for job in again)
                    pending.extendleft(again)
                    close_job(worker)
            case kind:
                if kind == "done":
                    outcome.done.add(event["id"])
                    outcome.failed.pop(event["id"], None)
                elif kind == "failed":
                    outcome.failed[event["id"]] = event["error"]
                if kind in ("done", "failed"):
                    worker.open.discard(event["id"])
                handle({**event, "worker": worker.number})
    return outcome


def _assign(pending: deque[Job], pool: Pool, finished: set[str]) -> None:
    """Give every idle worker the first job whose forerunner is done."""
    while ready := [job for job in pending if job.after is None or job.after in finished]:
        worker = pool.idle()
        if worker is None:
            return
        pending.remove(ready[0])
        worker.give(ready[0])


def _kill_hung(pool: Pool) -> None:
    for worker in pool.workers:
        if worker.job is not None and time.monotonic() - worker.heard > HANG_SECONDS:
            worker.kill()


def _after_death(worker: Worker, code: int, deaths: dict[str, int], outcome: Outcome, handle: Handle) -> list[Job]:
    """What is left to do of the job with which a worker died; a run that dies alone for the second time has failed."""
    assert worker.job is not None
    job, how = worker.job, _how(code)
    again = []
    for run_id in [i for i in job.ids if i in worker.open]:
        alone = len(job.ids) == 1
        deaths[run_id] = deaths.get(run_id, 0) + alone
        if deaths[run_id] < 2:
            again.append(job.only((run_id,), alone=True))
            continue
        text = f"the process that trained this run {how}, twice"
        if job.kind == "teacher":
            raise InputError(f"teacher {run_id}: {text}")
        folder = Store(Path(job.folder)).run(run_id)
        folder.fail(text + "\n")
        outcome.failed[run_id] = text
        run, _ = folder.read_plan()
        handle({"event": "failed", "id": run_id, "label": run.objective.label, "setting": "", "seed": run.seed, "error": text})
    if not job.ids:
        raise InputError(f"the process that checked a teacher {how}; see {job.folder}")
    if again:
        handle({"event": "note", "text": f"a worker {how}; {len(again)} run(s) go on from their checkpoints, one by one"})
    return again


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
