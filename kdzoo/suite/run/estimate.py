"""How long the runs that are missing will take: from what such runs have cost on this machine, else from a probe of ten steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch

from kdzoo.data.views import has_numbered_views, view_count
from kdzoo.models.placement import Placement
from kdzoo.runs.costs import kind_of, read_costs
from kdzoo.runs.environment import machine_name
from kdzoo.runs.metrics_file import read_lines
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import ObjectiveSpec, Run
from kdzoo.runs.store import RunFolder, Store, teacher_store
from kdzoo.suite.plan.cohorts import make_jobs, measurements, pretrain_runs
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.plan.planned import Plan, PlannedRun
from kdzoo.suite.plan.refit import wants_refit
from kdzoo.suite.plan.refit_plan import refit
from kdzoo.suite.run.bench import refit_plan
from kdzoo.suite.run.cost_record import seen_shape, steps_an_epoch, work_of
from kdzoo.suite.run.prepare import Prepared, states_of
from kdzoo.suite.run.search_left import left_of
from kdzoo.suite.run.untrained import Untrained, bind
from kdzoo.suite.run.worker_state import probe_of
from kdzoo.training.cohort import Cohort
from kdzoo.training.cost import COUNTED, TIMED, StepSeconds, evaluation_seconds, step_seconds
from kdzoo.training.doses import BATCHES, warm_up_steps
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_student import build_member

Watch = Callable[[str], AbstractContextManager[object]]
START_SECONDS = 10.0
"""what a worker process takes to import torch and timm, to read the data and to ask the teacher about validation and test images"""


@dataclass(frozen=True)
class ProbedCost:
    """Seconds of a kind of run that none of this machine has been.

    setup: to build it. own, shared: of its own part of a step, and of the part that a cohort shares. evaluated: of evaluating an image.
    """

    setup: float
    own: float
    shared: float
    evaluated: float


@dataclass(frozen=True)
class Probes:
    """What estimates of one bench share: its data and untrained networks, and the costs of the kinds of runs that were probed.

    watch: a block for each probe, which is told what is timed in it.
    """

    modules: Modules
    untrained: Untrained
    watch: Watch
    costs: dict[str, ProbedCost] = field(default_factory=dict)

    @staticmethod
    def of(prepared: Prepared, modules: Modules | None = None, watch: Watch = nullcontext) -> Probes:
        """No probes yet."""
        modules = modules or Modules()
        return Probes(modules, Untrained(modules, prepared.options.image_cache), watch)


def estimate(prepared: Prepared, probes: Probes | None = None) -> float:
    """Seconds that the missing runs, their teachers and the measuring of doses will take on this machine, if it does nothing else.

    probes: those of earlier estimates of the same bench, to which new ones are added.
    """
    jobs = make_jobs(_missing(prepared), prepared.plan, prepared.options, prepared.jobs, prepared.checked)
    seconds = JobSeconds(prepared, probes or Probes.of(prepared))
    teachers = [seconds.of_teacher(job) for job in jobs if job.kind == "teacher"]
    doses = [seconds.of_doses(job) for job in measurements(prepared.plan, prepared.options, prepared.jobs) if job.kind == "doses"]
    share = left_of(prepared.config, prepared.plan).share
    students = [share * seconds.of_students(job) for job in jobs if job.kind == "students"]
    if not any(teachers) and not students:
        return 0.0
    return START_SECONDS + sum(_side_by_side(one_after_another, prepared.jobs) for one_after_another in (teachers, doses, students))


def estimate_refit(prepared: Prepared, probes: Probes | None = None) -> float:
    """Seconds of the refit that follows a sweep, its teachers' too; 0 where none follows or its runs are done.

    While the sweep is not done, every method is taken at the first of its settings, whichever will be chosen. probes: as of `estimate`.
    """
    if not wants_refit(prepared.config):
        return 0.0
    plan = refit_plan(prepared) if not _missing(prepared) else _expected_refit(prepared)
    config = prepared.config.model_copy(update={"budget": None})
    return estimate(replace(prepared, config=config, plan=plan, states=states_of(plan), checked=frozenset()), probes)


def _expected_refit(prepared: Prepared) -> Plan:
    """The plan of a refit with the first setting of every method in place of the chosen one."""
    first: dict[tuple[str, str], PlannedRun] = {}
    for planned in prepared.plan.students:
        first.setdefault((str(planned.about["pair"]), planned.run.objective.label), planned)
    return refit([(planned.run, planned.about) for planned in first.values()], prepared.config, prepared.plan.teachers)


def _side_by_side(seconds: Iterable[float], processes: int) -> float:
    """How long jobs take that are shared among processes, each taking the next when it is done."""
    ends = [0.0] * processes
    for one in seconds:
        ends[ends.index(min(ends))] += one
    return max(ends)


def _missing(prepared: Prepared) -> list[PlannedRun]:
    """The runs that are still to be trained, of a search those that may be."""
    return [planned for planned in left_of(prepared.config, prepared.plan).runs if prepared.states.get(planned.run.id) != "done"]


class JobSeconds:
    """How long jobs of a plan take; every kind of run that is not on record is probed once."""

    def __init__(self, prepared: Prepared, probes: Probes) -> None:
        self._prepared = prepared
        self._probes = probes
        self._recorded = read_costs()
        self._machine = machine_name(torch.device(prepared.options.device))
        self._runs = {planned.run.id: planned for planned in (*prepared.plan.students, *prepared.plan.teachers.values())}
        self._unmeasured = {planned.run.id: planned for planned in prepared.plan.unmeasured}
        self._pretrain = pretrain_runs(_missing(prepared), prepared.plan)

    def of_teacher(self, job: Job) -> float:
        """Seconds of the training of a teacher; 0 where it is kept already."""
        options = job.options.model_copy(update={"threads": job.teacher_threads})
        missing = [run_id for run_id in job.ids if teacher_store().run(run_id).state() != "done"]
        return sum(self._of_runs([self._runs[run_id]], teacher_store(), options) for run_id in missing)

    def of_students(self, job: Job) -> float:
        """Seconds of the training of a cohort, and of the pretrain stages that its runs start from."""
        return self._of_runs([self._runs[run_id] for run_id in job.ids], self._prepared.plan.store, job.options)

    def of_doses(self, job: Job) -> float:
        """Seconds of a measurement of gradients (`kdzoo.training.doses.measure`).

        A student's forward is a third of its step alone. In the warm-up a method costs what it adds to that step; in each batch
        that is measured it has a backward through the student of its own.
        """
        planned = [self._unmeasured[probe_of(entry, self._prepared.plan.store).run.id] for entry in job.probes]
        first = bind(planned[0], self._prepared.plan)
        _, splits = self._probes.untrained.data(first)
        alone = self._step(student_alone(first), job.options).own
        steps = [self._step(bind(one, self._prepared.plan), job.options) for one in planned]
        shared = max(step.shared for step in steps)
        warm_up = warm_up_steps(steps_an_epoch(splits, first.run.recipe) * first.run.recipe.epochs)
        learning = shared + alone + sum(max(step.own - alone, 0.0) for step in steps)
        measuring = shared + alone + sum(step.own - alone / 3 for step in steps)
        return warm_up * learning + BATCHES * measuring

    def _step(self, located: LocatedRun, options: WorkerOptions) -> StepSeconds:
        """A step of a run by itself: its own part, and what it would share with others; all its own where its kind is on record."""
        recipe = located.run.recipe
        _, splits = self._probes.untrained.data(located)
        kind = kind_of(located.run, seen_shape(splits, recipe), options, self._machine)
        if (cost := self._recorded.get(kind)) is not None:
            return StepSeconds(shared=0.0, own=cost.image * recipe.batch_size)
        probed = self._probe(kind, located, options)
        return StepSeconds(probed.shared, probed.own)

    def _of_runs(self, cohort: list[PlannedRun], store: Store, options: WorkerOptions) -> float:
        """Seconds of runs that train in lockstep; what they share is computed once for all of them."""
        total, shared = 0.0, []
        for planned in cohort:
            located = bind(planned, self._prepared.plan)
            _, splits = self._probes.untrained.data(located)
            kind = kind_of(planned.run, seen_shape(splits, planned.run.recipe), options, self._machine)
            epochs = _epochs_left(planned.run, store.run(planned.run.id))
            epochs += sum(first.recipe.epochs for first in self._pretrain.get(planned.run.id, ()))
            steps = epochs * steps_an_epoch(splits, planned.run.recipe)
            work = work_of(splits, planned.run.recipe, steps)
            if (cost := self._recorded.get(kind)) is not None:
                total += cost.seconds(work)
                continue
            probed = self._probe(kind, located, options)
            total += probed.setup + probed.own * steps + probed.evaluated * work.evaluated
            shared.append(probed.shared * steps * _share_computed(planned.run.recipe, options))
        return total + max(shared, default=0.0) * len(shared) / max(len(cohort), 1)

    def _probe(self, kind: str, located: LocatedRun, options: WorkerOptions) -> ProbedCost:
        costs = self._probes.costs
        if kind not in costs:
            with self._probes.watch(f"timing a few steps of {step_words(located.run)}, for the estimate of the time"):
                costs[kind] = probe_cost(located, self._probes.untrained, options, self._probes.modules)
        return costs[kind]


def probe_cost(located: LocatedRun, untrained: Untrained, options: WorkerOptions, modules: Modules) -> ProbedCost:
    """What a run of a kind costs, by some steps of one of them with an untrained teacher."""
    torch.set_num_threads(options.threads)
    execution = Placement(options.model_copy(update={"teacher_cache": 0}))
    dataset, splits = untrained.data(located)
    teacher, shapes = untrained.live_teacher(located, execution)
    began = time.process_time()
    member = build_member(located, dataset, splits, shapes, execution, modules)
    built = time.process_time() - began
    cohort = Cohort([member], splits, teacher, execution)
    step = step_seconds(cohort)
    own_probe = (COUNTED + TIMED) * (step.shared + step.own * (2 if located.run.objective.terms else 1))  # `training.cost.step_cost`
    return ProbedCost(2 * built + own_probe, step.own, step.shared, evaluation_seconds(cohort, member))


def step_words(run: Run) -> str:
    """What is trained by a step of a run: `resnet20 by hinton`, `resnet56 alone`."""
    return f"{run.student.name} by {run.objective.label}" if run.objective.all_terms else f"{run.student.name} alone"


def student_alone(located: LocatedRun) -> LocatedRun:
    """The run's student without a teacher."""
    return replace(located, run=located.run.model_copy(update={"teacher": None, "objective": ObjectiveSpec(task=1.0)}))


def _share_computed(recipe: Recipe, options: WorkerOptions) -> float:
    """The share of a run's steps whose teacher outputs are not cached yet: of views that come again, each once."""
    views = view_count(recipe.augment)
    if options.teacher_cache == 0 or not has_numbered_views(recipe) or views is None:
        return 1.0
    epochs = recipe.drawn_epochs
    return views * (1 - (1 - 1 / views) ** epochs) / recipe.epochs


def _epochs_left(run: Run, folder: RunFolder) -> int:
    """The epochs of a run that are not behind it, as far as its checkpoint reaches: its metrics may reach a little further."""
    return run.recipe.epochs - (len(read_lines(folder.metrics, folder.id)) if folder.state() in ("started", "paused") else 0)
