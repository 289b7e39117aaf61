"""The port of a launcher: where jobs are computed. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from kdzoo.files import cache_folder
from kdzoo.runs.events import Event
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.run.job_queue import JobQueue

if TYPE_CHECKING:
    from kdzoo.training.located import Modules

EmitOfJob = Callable[[Job | None, Event], None]
"""takes an event and the job that it is of; None for what a worker tells between two jobs"""


@dataclass(frozen=True)
class LauncherSetup:
    """What a launcher is created with: the folder of its workers' logs, their plugins, and the device that was asked for.

    modules: networks that exist as objects of this process alone, which no other process can train. bench: the folder of the
    bench. options: what its engine is asked for, by name. lease_seconds: after so many seconds without a sign of life the job
    of a worker on another machine is taken over. processes_per_run: how many train each run, a GPU each. working_folder,
    environment: of its workers, where not this process's own.
    """

    logs: Path
    plugins: Sequence[str] = ()
    device: str = "auto"
    modules: Modules | None = None
    bench: Path = Path("results")
    options: Mapping[str, str] = field(default_factory=dict)
    lease_seconds: float = 300.0
    processes_per_run: int = 1
    working_folder: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of_bench(config: BenchConfig, modules: Modules | None = None) -> LauncherSetup:
        """What a bench's configuration says; its workers' logs lie in the cache folder."""
        return LauncherSetup(
            cache_folder() / "logs" / config.name,
            config.plugin,
            config.device,
            modules,
            bench=Path(config.results) / config.name,
            options=config.asked_of_launcher,
            lease_seconds=config.lease_seconds,
            processes_per_run=config.processes_per_run,
        )


class Launcher(Protocol):
    """Computes jobs. What becomes of a run is the suite's to decide (`supervise`), which knows no launcher."""

    def run(self, queue: JobQueue, emit: EmitOfJob, stop: Callable[[], bool]) -> None:
        """Take jobs from a queue until it is empty and none of them is running; emit all their events.

        The last event of a job is JobEnded, or WorkerDied where its process ended first; both may put further jobs into
        the queue. Ends early, with checkpoints, when `stop` says so.
        """
        ...

    def resize(self, processes: int, gpus: Sequence[str]) -> None:
        """Say how many processes may run at a time, and which GPUs they share (as CUDA_VISIBLE_DEVICES names them)."""
        ...

    def warm_up(self) -> None:
        """Start what takes time, before the jobs are known."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End all processes in good order: each writes checkpoints of what it trains."""
        ...
