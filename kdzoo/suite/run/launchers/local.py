"""Hands jobs to worker processes, isolates what kills them, and stops in good order. Free of torch."""

from __future__ import annotations

import contextlib
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

from kdzoo.errors import InputError, WorkFailed
from kdzoo.runs.store import RunFolder, Store
from kdzoo.suite.plan.jobs import Event, Handle, Job, Outcome
from kdzoo.suite.run.channel import CHANNEL_LOST, FORKED, Receiver
from kdzoo.suite.run.fork import how_it_ended
from kdzoo.text import number_of

HANG_SECONDS = 1800.0
"""a worker that says nothing for so long is taken for hung and killed"""
STOPPED_SECONDS = 60.0
"""a driver that has not looked for so long was stopped itself, and its workers perhaps with it: their silence says nothing"""
LOCK_RETRY_SECONDS = 1.0
STOP_SECONDS = 60.0
IDLE_STOP_SECONDS = 5.0
"""how long a worker that trains nothing may take to end: a thread or an exit hook of a plugin may keep it"""
DEATHS_ALONE = 2
"""a run with which its process died so often, with no other run beside it, has failed"""


class Worker:
    """A worker process; its events go to a queue that all workers share.

    Jobs and events have pipes of their own; whatever the process prints goes to the log.
    """

    def __init__(self, number: int, plugins: Sequence[str], log: Path, events: queue.SimpleQueue[tuple[Worker, Event]]) -> None:
        self.number = number
        self.log = log
        self.job: Job | None = None
        self.heard = time.monotonic()
        self.open: set[str] = set()
        log.parent.mkdir(parents=True, exist_ok=True)
        jobs_in, jobs_out = os.pipe()
        events_in, events_out = os.pipe()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kdzoo.suite.run.worker", str(jobs_in), str(events_out), *plugins],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(jobs_in, events_out),
                env={**os.environ, "OMP_WAIT_POLICY": "passive"},
            )
        os.close(jobs_in)
        os.close(events_out)
        self._jobs = os.fdopen(jobs_out, "w")
        self.receiver = Receiver(events_in, self.process)
        threading.Thread(target=self._read, args=(events_in, events), daemon=True).start()

    def _read(self, descriptor: int, events: queue.SimpleQueue[tuple[Worker, Event]]) -> None:
        for event in self.receiver.events():
            self.heard = time.monotonic()
            events.put((self, event))
        events.put((self, {"event": "exit", "code": self.process.wait()}))
        os.close(descriptor)

    def give(self, job: Job) -> None:
        self.job, self.open, self.heard = job, set(job.ids), time.monotonic()
        self._send(job.to_json())

    def stop(self) -> None:
        """Ask for checkpoints at the next step, and for the end."""
        self._send("stop")
        with contextlib.suppress(OSError):
            self._jobs.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _send(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a worker that has just died is noticed by its exit
            self._jobs.write(line + "\n")
            self._jobs.flush()


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
        now = time.monotonic()
        for worker in self.workers:
            deadline = now + (IDLE_STOP_SECONDS if worker.job is None else STOP_SECONDS)
            try:
                worker.process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                worker.kill()
        self.workers.clear()


def launch(jobs: Iterable[Job], pool: Pool, handle: Handle) -> Outcome:
    """Run the jobs on the pool's workers and pass their events on; how every run came out.

    A process that dies with a cohort is replaced, and the cohort's open runs follow one by one from their checkpoints,
    so that only the run which kills its process again has failed; a process that somebody stops (SIGTERM) is taken for
    dead. Raises InputError when a worker refuses a job (a teacher at chance, a folder that cannot be written), and
    WorkFailed when a teacher's training fails or its process, or that of a measurement, dies twice; the other workers then
    stop with checkpoints.
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

    looked = time.monotonic()
    while pending or locked or any(worker.job for worker in pool.workers):
        now = time.monotonic()
        if now - looked > STOPPED_SECONDS:
            for worker in pool.workers:
                worker.heard = now
        looked = now
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
        if pool.events.empty():
            _kill_hung(pool)
        match event["event"]:
            case "ready":
                pass
            case "idle":
                _report_strays(worker, handle)
                assert worker.job is not None
                if worker.job.kind == "students":
                    _read_outcome(worker, outcome, handle)
                close_job(worker)
            case "locked":
                assert worker.job is not None
                ids = tuple(event["ids"])
                worker.open -= set(ids)
                if worker.job.kind == "students":
                    names_left.append(worker.job.name)
                    locked.append((time.monotonic() + LOCK_RETRY_SECONDS, worker.job.only(ids)))
                    handle({"event": "waiting", "ids": list(ids), "text": f"waiting: another process is training {len(ids)} of these runs"})
            case "refused":
                raise InputError(*event["problems"])
            case "gave up":
                raise WorkFailed(event["text"])
            case "exit":
                pool.workers.remove(worker)
                _report_strays(worker, handle)
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


def _report_strays(worker: Worker, handle: Handle) -> None:
    """Tell how many lines on a worker's channel were not events."""
    receiver = worker.receiver
    if count := receiver.strays:
        text = f"worker {worker.number}: ignored {number_of(count, 'line')} without an event on its channel"
        handle({"event": "note", "text": f"{text}; the first: {receiver.first_stray!r}"})
        receiver.strays, receiver.first_stray = 0, ""


def _read_outcome(worker: Worker, outcome: Outcome, handle: Handle) -> None:
    """Read from disk how those runs of a job came out of which its worker has told nothing; a run without an outcome has failed."""
    assert worker.job is not None
    for run_id in sorted(worker.open):
        folder = Store(Path(worker.job.folder)).run(run_id)
        if folder.state() == "done":
            outcome.done.add(run_id)
        else:
            reason = folder.failure() if folder.state() == "failed" else "its worker ended the job before this run was finished"
            _report_failure(folder, reason, outcome, handle)


def _report_failure(folder: RunFolder, reason: str, outcome: Outcome, handle: Handle) -> None:
    outcome.failed[folder.id] = reason
    run, _ = folder.read_plan()
    handle({"event": "failed", "id": folder.id, "label": run.objective.label, "setting": "", "seed": run.seed, "error": reason})


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
    if job.kind != "students":
        return [_once_more(worker, job, how, deaths, handle)]
    again = []
    for run_id in [i for i in job.ids if i in worker.open]:
        deaths[run_id] = deaths.get(run_id, 0) + (len(job.ids) == 1)
        if deaths[run_id] < DEATHS_ALONE:
            again.append(job.only((run_id,), alone=True))
            continue
        folder = Store(Path(job.folder)).run(run_id)
        reason = f"the process that trained this run {how} twice; see {worker.log}"
        folder.fail(reason + "\n")
        _report_failure(folder, reason, outcome, handle)
    if again:
        handle({"event": "note", "text": f"a worker {how}; resuming {number_of(len(again), 'run')} from checkpoints, one at a time"})
    return again


def _once_more(worker: Worker, job: Job, how: str, deaths: dict[str, int], handle: Handle) -> Job:
    """The job of a teacher or of doses whose process died, for one more try; raises WorkFailed when it dies for the second time."""
    if job.kind == "doses":
        what = f"measuring the doses of {', '.join(dict.fromkeys(one['method'] for one in job.probes))}"
    else:
        what = f"teacher {job.ids[0]}" if job.ids else "the check of a teacher"
    deaths[job.name] = deaths.get(job.name, 0) + 1
    if deaths[job.name] >= DEATHS_ALONE:
        raise WorkFailed(f"{what}: its process {how} twice; see {worker.log}")
    again = "it starts again" if job.kind == "doses" else "it resumes from its checkpoint"
    handle({"event": "note", "text": f"{what}: its process {how}; {again}"})
    return job


def _how(code: int) -> str:
    if code == CHANNEL_LOST:
        return "lost the pipe to its driver (something in it closed the descriptor)"
    if code == FORKED:
        return "was a fork of a worker"
    return how_it_ended(code) + (" (out of memory?)" if code == -signal.SIGKILL else "")
