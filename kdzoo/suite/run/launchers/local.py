"""The launcher `local`: jobs in worker processes of this machine. It replaces a process that dies, and stops in good order.

Free of torch.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from kdzoo.runs.events import JobEnded, Note, WorkerDied, WorkerReady, of_worker
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.run.channel import CHANNEL_LOST, FORKED, PROCESSES_BROKEN
from kdzoo.suite.run.finished import code_stamp
from kdzoo.suite.run.fork import how_it_ended
from kdzoo.suite.run.job_queue import JobQueue
from kdzoo.suite.run.launchers.gpus import environment_of, first_gpu
from kdzoo.suite.run.launchers.launcher import EmitOfJob, LauncherSetup
from kdzoo.suite.run.launchers.process import Exit, Messages, Worker
from kdzoo.text import number_of

STOPPED_SECONDS = 5.0
"""a driver that has not looked for so long was stopped itself, and its workers perhaps with it: their silence says nothing"""
STOP_SECONDS = 60.0
CODE_CHANGED = (
    "kdzoo's own files have changed since this bench began, so that its processes may run two versions at once: "
    "end it (Ctrl-C) and run the same command again"
)
ROTATION_SECONDS = 10.0
"""between two looks at the sizes of the workers' logs"""
IDLE_STOP_SECONDS = 5.0
"""how long a worker that trains nothing may take to end: a thread or an exit hook of a plugin may keep it"""


class Local:
    """Worker processes, started when there is work for them; each sees one of the GPUs, where there are several.

    A process that somebody stops (SIGTERM) is taken for dead.
    """

    def __init__(self, setup: LauncherSetup) -> None:
        self._setup = setup
        self._size = 1
        self._gpus: Sequence[str] = first_gpu(setup.device, os.environ)
        self._messages: Messages = queue.SimpleQueue()
        self._workers: list[Worker] = []
        self._code: str | None = code_stamp()

    def resize(self, processes: int, gpus: Sequence[str]) -> None:
        """Say how many processes may run at a time, and which GPUs they share."""
        self._size, self._gpus = processes, gpus

    def warm_up(self) -> None:
        """Start one worker ahead of its first job: its imports take seconds that planning takes too."""
        if not self._workers:
            self._start()

    def run(self, queue_: JobQueue, emit: EmitOfJob, stop: Callable[[], bool]) -> None:
        """Run the jobs of a queue on the workers."""
        last_look = last_rotation = time.monotonic()
        while queue_ or any(worker.job for worker in self._workers):
            if stop():
                self.close()
                return
            now = time.monotonic()
            if now - last_rotation > ROTATION_SECONDS:
                last_rotation = now
                for worker in self._workers:
                    worker.rotate_log()
                self._tell_changed_code(emit)
            self._assign(queue_)
            try:
                worker, message = self._messages.get(timeout=0.5)
            except queue.Empty:
                last_look = self._forgive_silence(last_look)
                self._kill_hung()
                continue
            last_look = self._forgive_silence(last_look)
            if self._messages.empty():
                self._kill_hung()
            match message:
                case WorkerReady():
                    pass
                case Exit():
                    self._workers.remove(worker)
                    _report_strays(worker, emit)
                    if (job := worker.job) is not None:
                        self._tell_changed_code(emit)
                        emit(job, WorkerDied(_how_hung(job) if worker.is_hung else _how(message.code), str(worker.log)))
                case JobEnded():
                    _report_strays(worker, emit)
                    job, worker.job = worker.job, None
                    emit(job, message)
                case event:
                    emit(worker.job, of_worker(event, worker.number))

    def close(self) -> None:
        """End all workers in good order: each checkpoints what it trains; kill what does not end in time."""
        for worker in self._workers:
            worker.stop()
            if worker.job is None:
                worker.process.terminate()  # it may still be importing, and has nothing to save
        now = time.monotonic()
        for worker in self._workers:
            deadline = now + (IDLE_STOP_SECONDS if worker.job is None else STOP_SECONDS)
            try:
                worker.process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                worker.kill()
        self._workers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.close()
        except BaseException:  # a second Ctrl-C: no more waiting for checkpoints, but no process stays behind either
            for worker in self._workers:
                worker.kill()
            raise

    def _assign(self, jobs: JobQueue) -> None:
        """Give every idle worker a job, as long as one may run; start workers for the jobs beyond these."""
        while any(worker.job is None for worker in self._workers) or len(self._workers) < self._size:
            job = jobs.take()
            if job is None:
                return
            idle = next((worker for worker in self._workers if worker.job is None), None)
            (idle or self._start()).give(job)

    def _tell_changed_code(self, emit: EmitOfJob) -> None:
        """Emit a note, once, where kdzoo's files are no longer those that this process began with."""
        if self._code is not None and self._code != code_stamp():
            self._code = None
            emit(None, Note(CODE_CHANGED))

    def _start(self) -> Worker:
        number = next(n for n in range(self._size) if all(worker.number != n for worker in self._workers))
        log = self._setup.logs / f"worker-{number}.log"
        environment = {**self._setup.environment, **environment_of(number, self._gpus, self._setup.processes_per_run)}
        worker = Worker(number, self._setup.plugins, log, environment, self._messages, self._setup.working_folder)
        self._workers.append(worker)
        return worker

    def _forgive_silence(self, last_look: float) -> float:
        """Count no silence from before now where this process itself was stopped since its last look; the time of this one."""
        now = time.monotonic()
        if now - last_look > STOPPED_SECONDS:
            for worker in self._workers:
                worker.last_heard = now
        return now

    def _kill_hung(self) -> None:
        for worker in self._workers:
            if worker.job is not None and time.monotonic() - worker.last_heard > worker.job.options.run_timeout:
                worker.is_hung = True
                worker.kill()


def _report_strays(worker: Worker, emit: EmitOfJob) -> None:
    """Tell how many lines on a worker's channel were not events."""
    receiver = worker.receiver
    if count := receiver.strays:
        text = f"worker {worker.number}: ignored {number_of(count, 'line')} without an event on its channel"
        emit(worker.job, Note(f"{text}; the first: {receiver.first_stray!r}"))
        receiver.strays, receiver.first_stray = 0, ""


def _how_hung(job: Job) -> str:
    return f"made no progress for {job.options.run_timeout:g} seconds (--run-timeout) and was killed"


def _how(code: int) -> str:
    if code == CHANNEL_LOST:
        return "lost the pipe to its driver (something in it closed the descriptor)"
    if code == PROCESSES_BROKEN:
        return "lost one of the processes that trained with it (--processes-per-run)"
    if code == FORKED:
        return "was a fork of a worker"
    return how_it_ended(code) + (" (out of memory?)" if code == -signal.SIGKILL else "")
