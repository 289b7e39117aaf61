"""Takes shared jobs and does them, one at a time, until none is left: what `kdzoo work` and the tasks of Slurm and Ray do. Free of torch.

Every job is done as a bench does it: in a worker process, under the same supervision. Only the death of this process, or of
its machine, is left to others: they see that its lease has gone stale, and go on from the checkpoints.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kdzoo.errors import InputError, WorkFailed
from kdzoo.runs.events import Emit, Event, Note, PlanMade
from kdzoo.runs.fence import ClaimLost, Fence
from kdzoo.runs.options import ExecutionSpec
from kdzoo.suite.run.claim import Claim, DriverWatch
from kdzoo.suite.run.launchers.launcher import Launcher, LauncherSetup
from kdzoo.suite.run.launchers.local import Local
from kdzoo.suite.run.supervise import run_jobs
from kdzoo.suite.run.work_folder import End, EventLog, JobFolder, SharedJob, WorkFolder

POLL_SECONDS = 0.5
LEASE_SECONDS: float = ExecutionSpec.model_fields["lease_seconds"].default
"""of a driver whose jobs, which say how long, have not come yet"""
LONGEST_POLL_SECONDS = 15.0
"""between two looks at jobs that other workers have; the time grows from the first to the second"""


@dataclass
class WorkDone:
    """What came of it. jobs: how many this worker ended; refused: what cannot be done, and why."""

    jobs: int = 0
    refused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class JobSource:
    """Where a worker looks for jobs: among all of a bench, or at one of them alone."""

    work: WorkFolder
    only: JobFolder | None = None

    @staticmethod
    def at(path: Path) -> JobSource:
        """What a path names: a job's folder, or else a bench's."""
        path = path.absolute()
        return JobSource(WorkFolder(path.parent), JobFolder(path)) if JobFolder(path).exists() else JobSource(WorkFolder.of_bench(path))

    def may_have_jobs(self) -> bool:
        """Whether jobs are there, or may come of a driver that has left its lease."""
        return bool(self.jobs()) or self.work.has_driver()

    def jobs(self) -> list[JobFolder]:
        """The jobs that are there."""
        return [folder for folder in self.work.jobs() if self.only in (None, folder)]


def take_work(path: Path, emit: Emit, *, workers: Workers, stop: Callable[[], bool] = lambda: False) -> WorkDone:
    """Do the jobs of a bench's folder, or one job, until all have ended; jobs that others do are waited for, and taken over when they die.

    In a bench's folder jobs may follow as long as its driver shows signs of life.

    Raises InputError where this machine lacks what the jobs need.
    """
    done = WorkDone()
    claims: dict[Path, Claim] = {}
    source = JobSource.at(path)
    leases = [shared.lease_seconds for _, shared in read_jobs(source.jobs())]
    driver = DriverWatch(source.work, max(leases, default=LEASE_SECONDS)) if source.only is None else None
    wait, planned, told = POLL_SECONDS, False, ""
    while not stop():
        states = {folder: folder.end() for folder in source.jobs()}
        done.refused = [line for end in states.values() if end is not None for line in (*end.refused, *filter(None, [end.failed]))]
        open_jobs = dict(read_jobs([folder for folder, end in states.items() if end is None]))
        ready = ready_jobs(open_jobs, source.work)
        if (not open_jobs and not (driver and driver.is_there())) or (open_jobs and done.refused and not ready):
            break
        if open_jobs and not planned:
            emit(plan_of(source.work, open_jobs.values()))
            planned = True
        if (outcome := do_first(ready, claims, workers, emit, stop)) is None:
            if (reason := reason_to_wait(open_jobs, ready, source)) != told:
                emit(Note(reason))
                told = reason
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_POLL_SECONDS)
        else:
            done.jobs += outcome
            wait = POLL_SECONDS
    if driver is not None:
        driver.clear()
    return done


def reason_to_wait(open_jobs: Mapping[JobFolder, SharedJob], ready: Mapping[JobFolder, SharedJob], source: JobSource) -> str:
    """What a worker waits for that has nothing to do, a sentence."""
    bench = source.work.path.parent
    if not open_jobs:
        return f"no job is open; waiting as long as the bench's driver, or one that died lately, may publish more ({bench})"
    if ready:
        return "other workers have the open jobs; waiting to take over those of one that dies"
    names = sorted({str(shared.job.waits_for) for shared in open_jobs.values()})
    alone = "" if source.only is None else f", which `kdzoo work {bench}` trains"
    return f"waiting for {', '.join(names)}{alone}"


def read_jobs(folders: Sequence[JobFolder]) -> Iterator[tuple[JobFolder, SharedJob]]:
    """What jobs are; one that its driver has just removed is left out. Raises InputError where one is damaged."""
    for folder in folders:
        try:
            yield folder, folder.read()
        except InputError:
            if folder.exists():
                raise


def ready_jobs(open_jobs: dict[JobFolder, SharedJob], work: WorkFolder) -> dict[JobFolder, SharedJob]:
    """The jobs that need not wait for another one, those that nobody has claimed yet first; each group begins at a place of its own."""
    awaited = work.first_jobs() if any(shared.job.waits_for for shared in open_jobs.values()) else []
    ends = {folder: folder.end() for folder in awaited}
    not_over = {shared.job.name for _, shared in read_jobs([folder for folder, end in ends.items() if end is None or not end.is_good])}
    ready = [(folder, shared) for folder, shared in open_jobs.items() if shared.job.waits_for not in not_over]
    random.shuffle(ready)  # workers that begin together do not all ask for the same job
    ready.sort(key=lambda item: (item[0].fence("").file.exists(), item[1].job.kind != "teacher"))
    return dict(ready)


def do_first(
    ready: dict[JobFolder, SharedJob], claims: dict[Path, Claim], workers: Workers, emit: Emit, stop: Callable[[], bool]
) -> int | None:
    """Do the first job that nobody else has; 1 where it came to its end, None where there was none."""
    checked = set[tuple[object, ...]]()
    for folder, shared in ready.items():
        if shared.needs not in checked and (faults := shared.faults()):
            raise InputError(*faults)
        checked.add(shared.needs)
        claim = claims.setdefault(folder.path, Claim(folder, shared.token, shared.lease_seconds))
        if (outcome := do_claimed(folder, shared, claim, workers, emit, stop)) is not None:
            return outcome
    return None


def do_claimed(folder: JobFolder, shared: SharedJob, claim: Claim, workers: Workers, emit: Emit, stop: Callable[[], bool]) -> int | None:
    """Claim a job and do it; 1 where it came to its end, None where another worker has it."""
    if (fence := claim.take()) is None:
        return None
    try:
        return do_job(folder, shared, fence, workers, emit, lambda: stop() or claim.is_lost)
    except ClaimLost as lost:
        emit(Note(str(lost)))
        return 0
    except BaseException:  # checkpoints are written before somebody else may claim the job
        workers.close()
        raise
    finally:
        claim.give_back()


def do_job(folder: JobFolder, shared: SharedJob, fence: Fence, workers: Workers, emit: Emit, stop: Callable[[], bool]) -> int:
    """Do a job under a claim, and write how it ended; 0 where it was stopped before. Raises ClaimLost where another worker has taken it."""
    if folder.end() is not None:
        return 0
    if fault := folder.forget_damaged_end():
        emit(Note(fault))
    log = EventLog(folder, fence)

    def tell(event: Event) -> None:
        log.append(event)
        emit(event)

    end = End()
    launcher = workers.launcher_for(shared, folder)
    try:
        run_jobs([replace(shared.job, claim=(str(fence.file), fence.mark))], launcher, tell, stop)
    except InputError as error:
        end = End(refused=tuple(error.problems))
    except WorkFailed as error:
        end = End(failed=str(error))
    fence.check()
    if stop():
        return 0
    folder.write_end(end)
    return 1


def refuse_job(folder: JobFolder) -> bool:
    """End a job with what this machine lacks for it; False where it lacks nothing, and where another worker has the job.

    Raises InputError where the job is damaged.
    """
    shared = folder.read()
    faults = shared.faults()
    claim = Claim(folder, shared.token, shared.lease_seconds)
    if not faults or claim.take() is None:
        return False
    try:
        folder.write_end(End(refused=tuple(faults)))
    finally:
        claim.give_back()
    return True


class Workers:
    """The worker process of this machine, kept from job to job while the jobs need the same; all are ended on leaving."""

    def __init__(self) -> None:
        self._launcher: Launcher | None = None
        self._key: tuple[object, ...] = ()
        self._stack = contextlib.ExitStack()

    def launcher_for(self, shared: SharedJob, folder: JobFolder) -> Launcher:
        """A launcher of this machine's own for a job."""
        key = (tuple(shared.plugins.items()), shared.device, shared.working_folder, tuple(sorted(shared.environment.items())))
        if self._launcher is None or key != self._key:
            self.close()
            logs = WorkFolder(folder.path.parent).logs / f"{socket.gethostname()}-{os.getpid()}"
            setup = LauncherSetup(
                logs,
                tuple(shared.plugins),
                shared.device,
                working_folder=Path(shared.working_folder),
                environment=shared.environment,
            )
            self._launcher, self._key = self._stack.enter_context(Local(setup)), key
        return self._launcher

    def close(self) -> None:
        """End the worker process: it writes checkpoints of what it trains."""
        self._stack.close()
        self._launcher = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def plan_of(work: WorkFolder, jobs: Iterable[SharedJob]) -> PlanMade:
    """What is to be done, for a display."""
    students = [shared.job for shared in jobs if shared.job.kind == "students"]
    units = sum(job.units for job in students)
    return PlanMade(work.path.parent.name, units, total=sum(len(job.ids) for job in students), done=0, failed=0)
