"""From planned runs to jobs: teachers first, then cohorts that train in lockstep."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import replace
from functools import cache

import torch

from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import MAPS
from kdzoo.runs.options import ELSEWHERE, WorkerOptions
from kdzoo.runs.spec import Run
from kdzoo.runs.store import teacher_store
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.plan.planned import Plan, PlannedRun
from kdzoo.training.train import UNITS_AN_EPOCH

LARGEST_COHORT = {"cpu": 8, "cuda": 64}
"""students trained in lockstep at the most: they are in memory together"""


def make_jobs(
    todo: Iterable[PlannedRun], plan: Plan, options: WorkerOptions, processes: int, checked_before: Container[str] = ()
) -> list[Job]:
    """Teachers first, then cohorts: runs that share data, recipe, seed and teacher, small enough to keep all processes busy.

    checked: names of jobs of teachers that are left out, since they are done.
    """
    todo = list(todo)
    groups = groups_in_lockstep(todo)
    busy = 1 if processes == 1 else 2 * processes  # two cohorts for each process, so that none waits long for the last
    largest = max(1, min(LARGEST_COHORT[torch.device(options.device).type], -(-len(todo) // busy)))
    stages = pretrain_runs(todo, plan)
    jobs: dict[str, Job] = {}
    for group in groups:
        waits_for = None
        taught_run = next((planned for planned in group if planned.run.teacher is not None), None)
        if taught_run is not None:
            job = teacher_job(taught_run, plan, options, processes)
            waits_for = None if job.name in checked_before else job.name
            if waits_for is not None:
                jobs.setdefault(waits_for, replace(job, checked_run=(str(plan.folder), taught_run.run.id)))
        group = sorted(group, key=lambda planned: not reads_maps(planned.run))  # as few cohorts as can be then run the teacher for maps
        for start in range(0, len(group), largest):
            part = group[start : start + largest]
            name = f"{part[0].run.id} and {len(part) - 1} more"  # the same for a driver that finds other runs done
            ids = tuple(p.run.id for p in part)
            units = sum(units_of(p.run, options.until) + sum(map(units_of, stages.get(p.run.id, ()))) for p in part)
            jobs[name] = Job(name, "students", str(plan.folder), ids, options, units, waits_for)
    return list(jobs.values())


def teacher_job(student: PlannedRun, plan: Plan, options: WorkerOptions, processes: int) -> Job:
    """The job that trains the teacher of a student, where that has to be, and checks it.

    Students wait for their teachers, which therefore share all threads of this machine among them; on others a worker has its own.
    """
    sharing = 1 if options.launcher in ELSEWHERE else processes
    trained = [plan.teachers[i] for i in [student.about["teacher_id"]] if i in plan.teachers]
    return Job(
        name=f"teacher {student.run.teacher} on {student.run.data.val_fraction}",
        kind="teacher",
        folder=str(teacher_store().folder),
        ids=tuple(one.run.id for one in trained),
        options=options.model_copy(update={"wandb": None, "oracle": False, "keep": ("predictions", "student"), "until": None}),
        teacher_threads=max(options.threads, options.threads * sharing // max(len(plan.teachers), 1)),
        units=sum(units_of(one.run) for one in trained if teacher_store().run(one.run.id).state() != "done"),
    )


def measurements(plan: Plan, options: WorkerOptions, processes: int) -> list[Job]:
    """The teachers first, then what has to be measured, together where one student serves: same teacher, data and recipe.

    A student that starts from a pretrain stage serves what starts there too.
    """
    jobs: dict[str, Job] = {}
    for group in groups_in_lockstep(plan.unmeasured, _start_of):
        probes = tuple(
            {
                "method": one.run.objective.label,
                "run": one.run.model_dump(mode="json"),
                "about": dict(one.about),
            }
            for one in group
        )
        first_with_teacher = next((number for number, one in enumerate(group) if one.run.teacher is not None), None)
        waits_for = None
        if first_with_teacher is not None:
            taught_run = group[first_with_teacher]
            job = teacher_job(taught_run, plan, options, processes)
            waits_for = job.name
            jobs.setdefault(waits_for, replace(job, probes=(probes[first_with_teacher],)))
        name = f"doses of {len(group)} at {group[0].run.id}"
        jobs[name] = Job(
            name, "doses", str(plan.folder), (), options.model_copy(update={"wandb": None}), waits_for=waits_for, probes=probes
        )
    return list(jobs.values())


def _start_of(run: Run) -> str:
    """The pretrain stage that a student of a run starts from; empty where it starts afresh."""
    first = run.pretrain_run
    if first is None or not REGISTRY.get(first.objective.terms[0].method).card.needs.student:
        return ""
    return first.id


def reads_maps(run: Run) -> bool:
    """Whether a term of a run reads feature maps of the teacher, which its cache may be too small for."""
    return any(REGISTRY.get(term.method).card.needs.teacher.outputs & MAPS for term in run.objective.terms)


def units_of(run: Run, until: int | None = None) -> int:
    """The work of a run up to the end of an epoch, None for its last, in the units that training reports.

    Its pretrain stage is a run of its own.
    """
    return min(until or run.recipe.epochs, run.recipe.epochs) * UNITS_AN_EPOCH


def pretrain_runs(todo: Iterable[PlannedRun], plan: Plan) -> dict[str, list[Run]]:
    """The pretrain stages that have to be trained, each once: by the id of the first run that starts from it."""
    needed: dict[str, tuple[str, Run]] = {}
    for planned in todo:
        if (first := planned.run.pretrain_run) is not None and plan.store.run(first.id).state() != "done":
            needed.setdefault(first.id, (planned.run.id, first))
    return {owner: [first] for owner, first in needed.values()}


def groups_in_lockstep(todo: Iterable[PlannedRun], further: Callable[[Run], str] = lambda run: "") -> list[list[PlannedRun]]:
    """The runs that may train in lockstep: same data, recipe, seed, student and teacher; one without a teacher joins the first such.

    further: what else has to be the same.
    """
    spell_out = cache(str)  # most runs of a bench share their parts
    groups: dict[tuple[str, ...], dict[str, list[PlannedRun]]] = {}
    for planned in todo:
        run = planned.run
        of_teacher = groups.setdefault(
            (spell_out(run.data), spell_out(run.recipe), str(run.seed), spell_out(run.student), further(run)), {}
        )
        of_teacher.setdefault("" if run.teacher is None else spell_out(run.teacher), []).append(planned)
    cohorts = []
    for of_teacher in groups.values():
        alone = of_teacher.pop("", [])
        first, *others = of_teacher.values() or [[]]
        cohorts += [alone + first, *others]
    return cohorts
