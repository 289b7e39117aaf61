"""Trains those runs of a plan that are not over: teachers, pretrain stages, cohorts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdzoo.runs.events import CacheUse, Emit, Event, PlanMade, Summary, emit_notes
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import Run
from kdzoo.suite.plan.cohorts import make_jobs
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.plan.planned import Plan, PlannedRun
from kdzoo.suite.run.launchers.launcher import Launcher
from kdzoo.suite.run.planned_files import forget_failed_teachers, write_plan
from kdzoo.suite.run.prepare import Prepared
from kdzoo.suite.run.repair import forget_damaged
from kdzoo.suite.run.supervise import run_jobs


def train_plan(
    prepared: Prepared, launcher: Launcher, emit: Emit, *, retry_failed: bool, stop: Callable[[], bool] = lambda: False
) -> Outcome:
    """Train those runs of a plan that are not over, their teachers and pretrain stages before them; how every run came out.

    Where the options ask for fewer epochs than a whole run's, runs that have come so far are over, and the others are paused there.
    """
    plan = prepared.plan
    emit_notes(write_plan(plan, prepared.known), emit)
    outcome = Outcome()
    todo: list[PlannedRun] = []
    for planned in plan.students:
        folder = plan.store.run(planned.run.id)
        state = prepared.state_of(folder)
        if state == "done":
            outcome.done.add(folder.id)
        elif state == "failed" and not retry_failed:
            outcome.failed[folder.id] = folder.failure().error
        elif state == "paused" and folder.is_over(prepared.options.until):
            outcome.paused.add(folder.id)
        else:
            forget_damaged(folder, emit)
            if state == "failed":
                folder.reset()
            todo.append(planned)
    if retry_failed:
        forget_failed_teachers(plan)
    jobs = make_jobs(todo, plan, prepared.options, prepared.jobs, prepared.checked)
    emit(
        PlanMade(
            name=plan.name,
            units=sum(job.units for job in jobs),
            total=len(plan.students),
            done=len(outcome.done) + len(outcome.paused),
            failed=len(outcome.failed),
            teacher_units=sum(job.units for job in jobs if job.kind == "teacher"),
            processes=prepared.jobs,
            alike=trained_alike(plan),
        )
    )
    if jobs:
        cache_share = CacheShare(emit)
        launcher.resize(prepared.jobs, prepared.gpus)
        of_jobs = run_jobs(jobs, launcher, cache_share.receive, stop)
        cache_share.emit_summary()
        outcome = outcome.joined(of_jobs)
    ids = {planned.run.id for planned in plan.students}
    unreported = ids - outcome.done - outcome.failed.keys() - outcome.paused
    outcome.failed.update(dict.fromkeys(unreported, "it was not trained: no worker reported a result"))
    return Outcome(outcome.done & ids, {key: text for key, text in outcome.failed.items() if key in ids}, outcome.paused & ids)


def trained_alike(plan: Plan) -> bool:
    """Whether teachers and students are trained alike but for length and rate, so that the speed of the one predicts the other's."""

    def trained_as(run: Run) -> Recipe:
        return run.recipe.model_copy(update={"epochs": 1, "lr": 1.0})

    recipes = {trained_as(planned.run) for planned in plan.students}
    return all(trained_as(teacher.run) in recipes for teacher in plan.teachers.values())


@dataclass
class CacheShare:
    """Adds up how the cohorts used their teachers' caches, and passes all other events on."""

    further: Emit
    lookups: int = 0
    hits: int = 0
    bytes: int = 0

    def receive(self, event: Event) -> None:
        """Take an event."""
        if not isinstance(event, CacheUse):
            self.further(event)
            return
        self.lookups += event.lookups
        self.hits += event.hits
        self.bytes = max(self.bytes, event.bytes)

    def emit_summary(self) -> None:
        """Emit the share of answers that were cached, where any was asked for."""
        if self.lookups:
            share = f"{100 * self.hits / self.lookups:.0f} % of {self.lookups:,} teacher outputs read from the cache"
            size = self.bytes / 1024**2
            self.further(Summary(f"teacher cache: {share} ({size:,.{0 if size >= 10 else 1}f} MB)"))
