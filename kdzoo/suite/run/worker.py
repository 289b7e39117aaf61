"""A worker process: takes jobs as JSON lines on one pipe and answers with events on another (see `channel`)."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from kdzoo.contract.plugins import load_plugins
from kdzoo.errors import InputError, WorkFailed
from kdzoo.models.names import load_zoo
from kdzoo.runs.atomic import StoreError
from kdzoo.runs.events import JobEnded, JobRefused, TeacherFailed, WorkerReady
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.run.allocator import keep_freed_memory, return_freed_memory
from kdzoo.suite.run.channel import PROCESSES_BROKEN, Sender
from kdzoo.suite.run.work import work
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.training.processes import ProcessesBroken
from kdzoo.training.train import Stopped


def main() -> None:
    """Serve jobs until their pipe ends, or until SIGTERM; when either comes in the middle of one, checkpoint and leave.

    Arguments: the descriptors of the two pipes, then the plugins.
    """
    sys.stdout, sys.stderr = _log_stream(1), _log_stream(2)
    keep_freed_memory()
    jobs_in, events_out = int(sys.argv[1]), int(sys.argv[2])
    sender = Sender(events_out)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and says so on the pipe of jobs
    stopping = threading.Event()
    terminated = threading.Event()

    jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()

    def terminate(*_: object) -> None:
        terminated.set()
        stopping.set()
        jobs.put(None)

    signal.signal(signal.SIGTERM, terminate)
    if hasattr(signal, "SIGUSR2"):  # Slurm's warning before the time is over reaches every process of its job
        signal.signal(signal.SIGUSR2, terminate)
    threading.Thread(target=_listen, args=(jobs_in, jobs, stopping), daemon=True).start()
    load_plugins(sys.argv[3:])
    load_zoo()  # with timm, which takes seconds, while the process that started this one plans
    state = WorkerState(plugins=sys.argv[3:])
    sender.send(WorkerReady())

    def stop() -> bool:
        sender.check()
        return stopping.is_set()

    while (job := jobs.get()) is not None:
        _serve(job, state, sender, stop)
        return_freed_memory()
        if terminated.is_set():
            break
        sender.send(JobEnded())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # threads and exit hooks of a plugin may keep this process from ending
    if terminated.is_set():
        signal.raise_signal(signal.SIGTERM)  # the driver learns from the exit status what ended it


def _serve(job: Job, state: WorkerState, sender: Sender, stop: Callable[[], bool]) -> None:
    try:
        work(job, state, sender.send, stop)
    except InputError as error:
        sender.send(JobRefused(error.problems))
    except StoreError as error:
        sender.send(JobRefused((str(error),)))
    except WorkFailed as error:
        sender.send(TeacherFailed(str(error)))
    except Stopped:
        return  # who asked for it ends this process
    except ProcessesBroken as error:
        print(f"{error}; the worker ends", file=sys.stderr, flush=True)
        os._exit(PROCESSES_BROKEN)  # threads of the broken group may wait for the others


class _Log(io.FileIO):
    """A descriptor that takes whatever is written to it: a log is worth no run, and its disk may be full."""

    def write(self, content: Any, /) -> int:
        with contextlib.suppress(OSError):
            return super().write(content)
        return memoryview(content).nbytes


def _log_stream(descriptor: int) -> io.TextIOWrapper:
    raw = _Log(descriptor, "wb", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=descriptor == 2)


def _listen(descriptor: int, jobs: queue.SimpleQueue[Job | None], stopping: threading.Event) -> None:
    with contextlib.suppress(OSError), os.fdopen(descriptor) as lines:
        for line in lines:
            if line.strip() == "stop":
                stopping.set()
            else:
                jobs.put(Job.from_json(line))
    stopping.set()  # the parent is gone, or has closed the pipe because there is no more to do
    jobs.put(None)


if __name__ == "__main__":
    main()
