"""The launcher `ray`: jobs as tasks of a Ray cluster, which tries them again when a worker or a node dies. Free of torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from kdzoo.errors import InputError, raise_if_any
from kdzoo.suite.run.launchers.launcher import EmitOfJob, LauncherSetup
from kdzoo.suite.run.launchers.shared import Shared
from kdzoo.suite.run.take_work import Workers, take_work
from kdzoo.suite.run.work_folder import JobFolder
from kdzoo.text import first_line

TRIES = 20
"""how often a task may begin again: a cluster of spot machines loses nodes often, and each time little is lost"""
STOP_SECONDS = 60.0
NUMBERS = ("num_cpus", "num_gpus", "max_retries")
OPTIONS = ("address", *NUMBERS)
EXPORTED = ("PYTHONPATH", "OMP_NUM_THREADS")


def do_one(path: str) -> None:
    """What a task does."""
    with Workers() as workers:
        take_work(Path(path), lambda event: None, workers=workers)


def faults_of_node(path: str) -> list[str]:
    """What the node on which this runs lacks for a job."""
    return JobFolder(Path(path)).read().faults() if JobFolder(Path(path)).exists() else [f"{os.uname().nodename}: {path} is not there"]


def numbers_of(options: Mapping[str, str]) -> dict[str, float]:
    """What a task asks for, as numbers; raises InputError for each that is none, before a cluster is looked for."""
    found: dict[str, float] = {}
    problems: list[str] = []
    for name, text in options.items():
        if name not in NUMBERS:
            continue
        try:
            found[name] = float(text)
        except ValueError:
            problems.append(f"launcher_option: {name}: expected a number, got {text!r}")
    raise_if_any(problems)
    return found


class Ray:
    """The engine whose workers are tasks of Ray."""

    def __init__(self, setup: LauncherSetup) -> None:
        self._setup = setup
        self._tasks: dict[Path, Any] = {}
        self._began_ray = False

    def announce(self, folders: Sequence[JobFolder], emit: EmitOfJob) -> None:
        """Ray's own dashboard shows its tasks."""

    def start(self, folders: Sequence[JobFolder], processes: int) -> None:
        """Submit tasks, with what each of them needs of a node; raises InputError where a node lacks what the jobs need."""
        import ray

        numbers = numbers_of(self._setup.options)
        if not ray.is_initialized():
            self._connect()
        self._check_nodes(folders[0])
        for folder in folders:
            job = folder.read().job
            threads = job.teacher_threads if job.kind == "teacher" else job.options.threads
            task = ray.remote(do_one).options(
                num_cpus=numbers.get("num_cpus", threads),
                num_gpus=numbers.get("num_gpus", float(self._setup.device.startswith("cuda"))),
                max_retries=int(numbers.get("max_retries", TRIES)),
                scheduling_strategy="SPREAD",
                name=f"{self._setup.bench.name} {job.name}",
            )
            self._tasks[folder.path] = task.remote(str(folder.path))

    def how_it_ended(self, folder: JobFolder) -> str | None:
        """What Ray tells of a task that it does not try again."""
        import ray

        task = self._tasks[folder.path]
        if not ray.wait([task], timeout=0)[0]:
            return None
        try:
            ray.get(task)
        except ray.exceptions.RayError as error:
            return f"ended as a task of Ray: {first_line(error)}"
        return "ended as a task of Ray"

    def stop(self) -> None:
        """Interrupt the tasks that are left, and wait for their checkpoints."""
        import ray

        if not ray.is_initialized():
            return
        if left := ray.wait(list(self._tasks.values()), num_returns=len(self._tasks), timeout=0)[1] if self._tasks else []:
            for task in left:
                ray.cancel(task)
            ray.wait(left, num_returns=len(left), timeout=STOP_SECONDS)
        self._tasks.clear()
        if self._began_ray:
            ray.shutdown()

    def _connect(self) -> None:
        import ray

        address = self._setup.options.get("address", "auto")
        exported = {name: os.environ[name] for name in EXPORTED if name in os.environ}
        try:
            ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": exported})
        except (ConnectionError, ValueError) as error:
            raise InputError(
                f"launcher ray: no cluster at {address}; start one (ray start --head), or name it: --launcher-option address=HOST:PORT"
                f" ({first_line(error)})"
            ) from error
        self._began_ray = True

    def _check_nodes(self, folder: JobFolder) -> None:
        """Raises InputError with what the nodes lack that may get tasks."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node["NodeID"] for node in cast(Any, ray).nodes() if node["Alive"] and node["Resources"].get("CPU")]
        if not nodes:
            raise InputError("launcher ray: no node of the cluster has a CPU")
        check = ray.remote(faults_of_node)
        answers = {
            node: check.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(str(folder.path))
            for node in nodes
        }
        problems: list[str] = []
        for node, answer in answers.items():
            try:
                problems += cast(list[str], ray.get(cast(Any, answer)))
            except ray.exceptions.RayTaskError as error:
                problems.append(f"node {node[:8]}: kdzoo cannot be used there: {first_line(error.cause)}")
            except ray.exceptions.RayError:  # it has just died, and gets no tasks
                continue
        if problems:
            raise InputError(*dict.fromkeys(f"launcher ray: {problem}" for problem in problems))


def create(setup: LauncherSetup) -> Shared:
    """The launcher; raises InputError where Ray is not installed, or is asked for what it does not have."""
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise InputError("launcher ray: Ray is not installed; pip install 'ray[default]'") from error
    if unknown := sorted(set(setup.options) - set(OPTIONS)):
        raise InputError(f"launcher_option: unknown {', '.join(unknown)}; known: {', '.join(OPTIONS)}")
    return Shared(setup, Ray(setup))
