"""A worker process as its launcher sees it. Free of torch."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdzoo.runs.events import Event
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.run.channel import Receiver

LOG_BYTES = 16 * 1024**2
"""the size of a worker's log at which it is rotated; the one before is kept"""


@dataclass(frozen=True)
class Exit:
    """A worker process has ended, and all that it had sent is read."""

    code: int


Messages = queue.SimpleQueue[tuple["Worker", Event | Exit]]


class Worker:
    """A worker process; what it sends goes to a queue that all workers share.

    Jobs and events have pipes of their own; whatever the process prints goes to the log.
    """

    def __init__(
        self,
        number: int,
        plugins: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        messages: Messages,
        working_folder: Path | None = None,
    ) -> None:
        self.number = number
        self.log = log
        self.job: Job | None = None
        self.is_hung = False
        self.last_heard = time.monotonic()
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
                cwd=working_folder,
                env={**os.environ, "OMP_WAIT_POLICY": "passive", **environment},
            )
        os.close(jobs_in)
        os.close(events_out)
        self._jobs = os.fdopen(jobs_out, "w")
        self.receiver = Receiver(events_in, self.process)
        threading.Thread(target=self._read, args=(events_in, messages), daemon=True).start()

    def _read(self, descriptor: int, messages: Messages) -> None:
        for event in self.receiver.events():
            self.last_heard = time.monotonic()
            messages.put((self, event))
        messages.put((self, Exit(self.process.wait())))
        os.close(descriptor)

    def give(self, job: Job) -> None:
        """Hand it the next job."""
        self.job, self.last_heard = job, time.monotonic()
        self._send(job.to_json())

    def stop(self) -> None:
        """Ask for checkpoints at the next step, and for the end."""
        self._send("stop")
        with contextlib.suppress(OSError):
            self._jobs.close()

    def rotate_log(self) -> None:
        """Move what the process has printed to `NAME.1`, in place of what was there, once it is LOG_BYTES; the process prints on.

        A method that prints in every step of a long bench would fill the disk.
        """
        with contextlib.suppress(OSError):  # a log is worth no run: it may be gone, or the disk full
            if self.log.stat().st_size >= LOG_BYTES:
                shutil.copyfile(self.log, self.log.with_name(f"{self.log.name}.1"))
                os.truncate(self.log, 0)  # which whoever has it open for appending does not notice

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _send(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a worker that has just died is noticed by its exit
            self._jobs.write(line + "\n")
            self._jobs.flush()
