"""Supervises jobs, wherever they are computed: outcomes, locked runs, retries after a process has died. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kdzoo.errors import InputError, WorkFailed
from kdzoo.runs.events import Emit, Event, JobEnded, JobRefused, Note, RunDone, RunFailed, RunPaused, RunsLocked, TeacherFailed, WorkerDied
from kdzoo.runs.store import RunFolder
from kdzoo.suite.plan.jobs import Job, Outcome
from kdzoo.suite.run.job_queue import JobQueue
from kdzoo.suite.run.launchers.launcher import Launcher
from kdzoo.text import number_of

LOCK_RETRY_SECONDS = 1.0
DEATHS_ALONE = 2
"""a run with which its process died so often, with no other run beside it, has failed"""


def run_jobs(jobs: Iterable[Job], launcher: Launcher, emit: Emit, stop: Callable[[], bool] = lambda: False) -> Outcome:
    """Run jobs with a launcher and pass their events on; how every run came out.

    Where a process dies with a cohort, the cohort's open runs follow one by one from their checkpoints, so that only the
    run which kills its process again has failed. Runs that another process is training are tried again until they are
    done. Raises InputError where a job is refused (a teacher at chance, a folder that cannot be written), and WorkFailed
    where a teacher's training fails, or its process, or that of a measurement, dies twice.
    """
    queue = JobQueue(jobs)
    supervisor = Supervisor(queue, emit)
    launcher.run(queue, supervisor.receive, stop)
    return supervisor.outcome


class Supervisor:
    """Receives every event of every job. outcome: how the runs came out until now."""

    def __init__(self, queue: JobQueue, emit: Emit) -> None:
        self.outcome = Outcome()
        self._queue = queue
        self._emit = emit
        self._unreported: dict[int, set[str]] = {}
        """the runs of a job, by the job's identity, of which nothing has been told"""
        self._deaths: dict[str, int] = {}

    def receive(self, job: Job | None, event: Event) -> None:
        """Take an event of a job, or of a worker that has none."""
        match event:
            case JobRefused():
                raise InputError(*event.problems)
            case TeacherFailed():
                raise WorkFailed(event.text)
            case JobEnded() | WorkerDied() if job is not None:
                unreported = self._unreported_runs(job)
                del self._unreported[id(job)]
                if isinstance(event, WorkerDied):
                    self._try_again(job, unreported, event)
                elif job.kind == "students":
                    self._read_outcomes(job, unreported)
                self._queue.end(job)
            case RunsLocked() if job is not None:
                self._unreported_runs(job).difference_update(event.ids)
                if job.kind == "students":
                    self._queue.add(job.subset(event.ids), delay=LOCK_RETRY_SECONDS)
                    self._emit(Note(f"waiting: another process is training {len(event.ids)} of these runs"))
            case RunDone() | RunFailed() | RunPaused():
                self._count(job, event)
            case _:
                self._emit(event)

    def _unreported_runs(self, job: Job) -> set[str]:
        return self._unreported.setdefault(id(job), set(job.ids))

    def _count(self, job: Job | None, event: RunDone | RunFailed | RunPaused) -> None:
        if isinstance(event, RunDone):
            self.outcome.done.add(event.id)
            self.outcome.failed.pop(event.id, None)
        elif isinstance(event, RunPaused):
            self.outcome.paused.add(event.id)
        else:
            self.outcome.failed[event.id] = event.error
        if job is not None:
            self._unreported_runs(job).discard(event.id)
        self._emit(event)

    def _read_outcomes(self, job: Job, unreported: set[str]) -> None:
        """Read from disk how those runs of a job came out of which nothing was told; a run without an outcome has failed."""
        for folder in map(job.store.run, sorted(unreported)):
            if folder.state() == "done":
                self.outcome.done.add(folder.id)
            elif folder.state() == "paused" and folder.is_over(job.options.until):
                self.outcome.paused.add(folder.id)
            else:
                failed = folder.state() == "failed"
                self._fail(folder, folder.failure().error if failed else "its worker ended the job before this run was finished")

    def _fail(self, folder: RunFolder, reason: str) -> None:
        run, _ = folder.read_plan()
        self._count(None, RunFailed(folder.id, run.objective.label, "", run.seed, reason))

    def _try_again(self, job: Job, unreported: set[str], death: WorkerDied) -> None:
        """Queue what is left of a job whose worker died; a run that dies alone for the second time has failed."""
        if job.kind != "students":
            self._try_whole_again(job, death)
            return
        again = 0
        for run_id in [run_id for run_id in job.ids if run_id in unreported]:
            folder = job.store.run(run_id)
            if folder.state() == "failed":  # one of the processes that trained it has said why, before all of them ended
                self._fail(folder, folder.failure().error)
                continue
            self._deaths[run_id] = self._deaths.get(run_id, 0) + (len(job.ids) == 1)
            if self._deaths[run_id] < DEATHS_ALONE:
                self._queue.add(job.subset((run_id,)))
                again += 1
                continue
            reason = f"the process that trained this run {death.how} twice; see {death.log}"
            folder.fail(reason + "\n")
            self._fail(folder, reason)
        if again:
            self._emit(Note(f"a worker {death.how}; resuming {number_of(again, 'run')} from checkpoints, one at a time"))

    def _try_whole_again(self, job: Job, death: WorkerDied) -> None:
        """Queue the job of a teacher or of doses for one more try; raises WorkFailed when its process dies for the second time."""
        if job.kind == "doses":
            what = f"measuring the doses of {', '.join(dict.fromkeys(one['method'] for one in job.probes))}"
        else:
            what = f"teacher {job.ids[0]}" if job.ids else "the check of a teacher"
        self._deaths[job.name] = self._deaths.get(job.name, 0) + 1
        if self._deaths[job.name] >= DEATHS_ALONE:
            raise WorkFailed(f"{what}: its process {death.how} twice; see {death.log}")
        self._queue.add(job)
        again = "it starts again" if job.kind == "doses" else "it resumes from its checkpoint"
        self._emit(Note(f"{what}: its process {death.how}; {again}"))
