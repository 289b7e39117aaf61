"""The launcher `slurm`: jobs as arrays of Slurm, submitted by submitit, which checkpoint and are queued again before their time is over.

Free of torch.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kdzoo.errors import InputError
from kdzoo.files import read_text
from kdzoo.runs.atomic import write_bytes
from kdzoo.suite.run.launchers.launcher import EmitOfJob, LauncherSetup
from kdzoo.suite.run.launchers.shared import Shared
from kdzoo.suite.run.take_work import Workers, refuse_job, take_work
from kdzoo.suite.run.work_folder import JobFolder
from kdzoo.text import first_line

MANY_TIMEOUTS = 10_000
"""a job goes on from its checkpoints however often its time has been over"""
LARGEST_ARRAY = 1000
"""elements of one array: Slurm's MaxArraySize is 1001 unless its administrator says otherwise"""
QUEUE_SECONDS = 3.0
"""between two looks at Slurm's queue"""
LAG_SECONDS = 10.0
"""a job that has left the queue may have written its end so long before this machine sees it"""


TASK = "task"
"""the file in a job's folder that names the task which was submitted for it last"""


class ArrayTask:
    """What an element of an array does; submitit calls `checkpoint` in the middle of it when Slurm's signal comes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._workers: Workers | None = None

    def __call__(self) -> None:
        """Do the job; where this node lacks what it needs, the driver reads from the job's end what that is."""
        folder = JobFolder(Path(self._path))
        try:
            with Workers() as self._workers:
                take_work(folder.path, lambda event: None, workers=self._workers)
        except InputError:
            if not (folder.exists() and refuse_job(folder)):  # its driver has just removed it, or somebody else does it
                raise

    def checkpoint(self) -> Any:
        """Have the worker process write its checkpoints; what is to be submitted again."""
        from submitit.helpers import DelayedSubmission

        if self._workers is not None:
            self._workers.close()
        return DelayedSubmission(ArrayTask(self._path))


class Slurm:
    """The engine whose workers Slurm starts."""

    def __init__(self, setup: LauncherSetup, clock: Callable[[], float] = time.monotonic) -> None:
        self._setup, self._clock = setup, clock
        self._tasks: dict[Path, str] = {}
        """by the job's folder, the name of its task in the queue"""
        self._queue: frozenset[str] = frozenset()
        self._looked_at = float("-inf")
        self._left: dict[str, float] = {}
        """when a task was first missed in the queue"""

    def announce(self, folders: Sequence[JobFolder], emit: EmitOfJob) -> None:
        """Slurm's own commands show its queue."""

    def start(self, folders: Sequence[JobFolder], processes: int) -> None:
        """Submit arrays of those that no task in the queue stands for; raises InputError where Slurm or submitit refuses it.

        The tasks of a driver that was killed, or of another driver of this bench, go on: a second task for their jobs would take
        a node and wait there for the first.
        """
        self._look(self._clock())
        of_earlier = {folder.path: task for folder in folders if (task := submitted_task(folder)) in self._queue}
        self._tasks.update(of_earlier)
        if new := [folder for folder in folders if folder.path not in of_earlier]:
            self._submit(new, processes)

    def _submit(self, folders: Sequence[JobFolder], processes: int) -> None:
        import submitit

        work = folders[0].path.parent
        executor = submitit.AutoExecutor(folder=work / "slurm", cluster="slurm", slurm_max_num_timeout=MANY_TIMEOUTS)
        threads = max(max(one.job.options.threads, one.job.teacher_threads) for one in (folder.read() for folder in folders))
        parameters = {
            "name": work.parent.name,
            "slurm_array_parallelism": processes,
            "cpus_per_task": threads,
            **({"gpus_per_node": 1} if self._setup.device.startswith("cuda") else {}),
            **{key: int(value) if value.isdecimal() else value for key, value in self._setup.options.items()},
        }
        try:
            executor.update_parameters(**parameters)
            tasks = [
                task
                for first in range(0, len(folders), LARGEST_ARRAY)
                for task in executor.submit_array([ArrayTask(str(folder.path)) for folder in folders[first : first + LARGEST_ARRAY]])
            ]
        except (NameError, TypeError, ValueError, AssertionError) as error:
            given = ", ".join(f"{name}={value}" for name, value in self._setup.options.items())
            raise InputError(f"launcher_option: submitit does not take {given}: {type(error).__name__} {first_line(error)}") from error
        except submitit.core.utils.FailedJobError as error:
            raise InputError(f"launcher slurm: sbatch refused the jobs: {error}") from error
        for folder, task in zip(folders, tasks, strict=True):
            self._tasks[folder.path] = task.job_id
            write_bytes(folder.path / TASK, task.job_id.encode())
        self._looked_at = float("-inf")

    def how_it_ended(self, folder: JobFolder) -> str | None:
        """That a task has left the queue, once its end would have been seen."""
        task, now = self._tasks[folder.path], self._clock()
        if now - self._looked_at > QUEUE_SECONDS:
            self._look(now)
        if task in self._queue:
            self._left.pop(task, None)
            return None
        if now - self._left.setdefault(task, now) < LAG_SECONDS:
            return None
        return f"left Slurm's queue (job {task}) without an end; its output is in {folder.path.parent / 'slurm'}"

    def stop(self) -> None:
        """Cancel what is in the queue: Slurm asks workers to end, which write checkpoints, before it kills them."""
        self._look(self._clock())
        if left := sorted(set(self._tasks.values()) & self._queue):
            subprocess.run(["scancel", *left], check=False, capture_output=True)
        self._tasks.clear()

    def _look(self, now: float) -> None:
        """Read the queue; where the controller does not answer, it stays as it was."""
        answer = subprocess.run(["squeue", "--me", "-h", "-r", "-o", "%i"], check=False, capture_output=True, text=True)
        if answer.returncode == 0:
            self._queue, self._looked_at = frozenset(answer.stdout.split()), now


def submitted_task(folder: JobFolder) -> str:
    """The task that was submitted last for a job; empty where there was none."""
    try:
        return read_text(folder.path / TASK)
    except OSError:
        return ""


def create(setup: LauncherSetup) -> Shared:
    """The launcher; raises InputError where Slurm or submitit is not installed."""
    problems = []
    if shutil.which("sbatch") is None:
        problems.append("launcher slurm: sbatch was not found; run this on a machine that submits jobs to Slurm")
    try:
        import submitit  # noqa: F401
    except ImportError:
        problems.append("launcher slurm: submitit is not installed; pip install submitit")
    if problems:
        raise InputError(*problems)
    return Shared(setup, Slurm(setup))
