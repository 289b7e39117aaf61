"""The runs of a job, trained in lockstep, after the pretrain stages that they start from."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from kdzoo.errors import InputError
from kdzoo.models.placement import Placement
from kdzoo.runs.atomic import StoreError, remove_unfinished
from kdzoo.runs.events import Emit, Event, MemberFailed, Note, Role, RunDone, RunFailed, RunPaused, RunsLocked, StepsTaken, TrainingBegun
from kdzoo.runs.metrics_file import number_in, validation_at
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.results import Cost
from kdzoo.runs.spec import Run
from kdzoo.runs.store import RunFolder, Store, is_teacher
from kdzoo.suite.report.settings import setting_text
from kdzoo.suite.run.accelerators import attach_accelerators, note_lost_lines
from kdzoo.suite.run.cost_record import record_costs, work_clock
from kdzoo.suite.run.followers import Followers
from kdzoo.suite.run.free_memory import memory_of_cohort
from kdzoo.suite.run.members import begin_with_probe, measure_cost, open_loggers, pretrain_failure, start_or_resume
from kdzoo.suite.run.repair import forget_damaged, renew
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.tasks.known import task_named
from kdzoo.training.cohort import Cohort
from kdzoo.training.cost import with_pretrain_stage
from kdzoo.training.located import LocatedRun
from kdzoo.training.member import Member
from kdzoo.training.processes import ProcessesBroken, is_of_group
from kdzoo.training.run_student import build_member
from kdzoo.training.train import UNITS_AN_EPOCH, Stopped, fit

LOCK_POLL_SECONDS = 0.5
"""between two looks at a run that another process has locked"""


def train_runs(
    store: Store, ids: Iterable[str], options: WorkerOptions, state: WorkerState, emit: Emit, stop: Callable[[], bool]
) -> list[str]:
    """Train those of a cohort's runs that are not done; the ids of those that another process is training."""
    locked: list[str] = []
    with ExitStack() as locks:
        located_runs: list[LocatedRun] = []
        for run_id in ids:
            folder = store.run(run_id)
            if not locks.enter_context(folder.lock()):
                locked.append(run_id)
                continue
            for place in (folder.path, folder.checkpoint.parent):
                remove_unfinished(place)
            renew(folder, emit)
            if folder.state() == "done" or (folder.state() == "paused" and folder.is_over(options.until)):
                report(folder, emit)
            else:
                located_runs.append(LocatedRun.read(folder))
        if located_runs:
            pretrain(store, located_runs, options, state, emit, stop)
            located_runs = [located for located in located_runs if located.folder.state() != "failed"]
        if located_runs:
            reported: set[str] = set()

            def relay(event: Event) -> None:
                """Pass an event on; a failure, which the trainer knows by its id alone, with what a reader wants to know."""
                if isinstance(event, MemberFailed):
                    reported.add(event.id)
                    report(store.run(event.id), emit)
                    return
                if isinstance(event, TrainingBegun | StepsTaken):
                    for run_id in event.ids:
                        store.run(run_id).give_sign_of_life()
                emit(event)

            try:
                train_cohort(store, located_runs, options, state, relay, stop)
            except ProcessesBroken:
                for located in located_runs:
                    if located.folder.state() == "failed":
                        report(located.folder, emit)
                raise
            except (StoreError, Stopped, InputError):
                raise
            except Exception:  # data or a teacher that cannot be had fails every run that needs them, with the reason
                for located in located_runs:
                    if located.folder.state() != "done":
                        located.folder.fail(traceback.format_exc())
            for located in located_runs:
                if located.folder.id not in reported:
                    report(located.folder, emit)
    if locked:
        emit(RunsLocked(tuple(locked)))
    return locked


def pretrain(
    store: Store, located_runs: Iterable[LocatedRun], options: WorkerOptions, state: WorkerState, emit: Emit, stop: Callable[[], bool]
) -> None:
    """Train the pretrain stages of the runs that have one, unless they are done; where one fails, so do the runs that start from it."""
    waiting = [
        (located, first)
        for located in located_runs
        if (first := located.run.pretrain_run) is not None and not located.folder.checkpoint.exists()
    ]
    train_pretrain_runs(store, waiting, options, state, emit, stop)
    for located, first in waiting:
        if store.run(first.id).state() != "done":
            located.folder.fail(pretrain_failure(store, first))
            report(located.folder, emit)


def train_pretrain_runs(
    store: Store,
    waiting: Iterable[tuple[LocatedRun, Run]],
    options: WorkerOptions,
    state: WorkerState,
    emit: Emit,
    stop: Callable[[], bool],
    about: Callable[[LocatedRun], Mapping[str, Any]] = lambda located: located.folder.read_plan()[1],
) -> None:
    """Train pretrain stages that are not done, each with the record of a run that waits for it.

    Runs of other settings, in this process or another, may start from the same pretrain stage. about: that record.
    """
    by_recipe: dict[str, list[str]] = {}
    for located, first in waiting:
        folder = store.run(first.id)
        forget_damaged(folder, emit)
        if folder.state() == "failed":
            folder.reset()
        folder.plan(first, about(located))
        ids = by_recipe.setdefault(str(first.recipe), [])
        ids += [] if first.id in ids else [first.id]
    apart = options.model_copy(update={"keep": ("checkpoint",), "oracle": False, "wandb": None, "until": None})

    def relay(event: Event) -> None:
        """Pass an event on; what another process trains is waited for here, and is no job of the driver's."""
        if isinstance(event, RunsLocked):
            emit(Note(f"waiting: another process is training the pretrain stage {', '.join(event.ids)}"))
        else:
            emit(event)

    for left in by_recipe.values():
        while left := train_runs(store, left, apart, state, relay, stop):
            if stop():
                raise Stopped("training was stopped; run the same command to resume")
            time.sleep(LOCK_POLL_SECONDS)


def train_cohort(
    store: Store, located_runs: list[LocatedRun], options: WorkerOptions, state: WorkerState, emit: Emit, stop: Callable[[], bool]
) -> None:
    """Assemble, resume from checkpoints, probe the cost of what is new, and fit; groups that stand apart follow each other."""
    execution = Placement(options)
    dataset, splits = state.data(located_runs[0], options)
    teacher, shapes = None, None
    with_teacher = [located for located in located_runs if located.run.teacher is not None]
    if len({str(located.run.teacher) for located in with_teacher}) > 1:
        raise ValueError("a cohort has one teacher; these runs have several")
    for located in with_teacher[:1]:
        teacher, shapes = state.teacher(located, dataset, splits, execution, emit)
    began = work_clock(execution.device, options.threads)
    members: list[Member] = []
    costs: dict[str, dict[str, Any]] = {}
    for located in located_runs:
        waiting = [(located, first)] if (first := located.run.pretrain_run) is not None else []
        train_first = partial(train_pretrain_runs, store, waiting, options, state, emit, stop)
        teacher_shapes, weights = (
            (shapes, teacher.weights_digest) if located.run.teacher is not None and teacher is not None else (None, None)
        )
        build = partial(build_member, located, dataset, splits, teacher_shapes, execution, state.modules, weights)
        try:
            located.folder.go_on()
            member = start_or_resume(store, located, build, train_first, emit)
            if member.step == 0 and member.run.recipe.head == "probe" and member.network.fresh_head:
                begin_with_probe(member, splits, emit)
            if member.cost is None or member.cost.keys() != Cost.model_fields.keys():  # an earlier kdzoo measured less of it
                setting = str(located.run.model_copy(update={"seed": 0}))
                if setting not in costs:  # a seed changes no cost
                    costs[setting] = measure_cost(located, build(), dataset, splits, teacher, execution, state.modules)
                member.cost = dict(costs[setting])
                if first is not None:
                    share = first.recipe.epochs / located.run.recipe.epochs
                    member.cost = with_pretrain_stage(member.cost, store.run(first.id).result()["cost"], share)
            member.logger = open_loggers(member, options, store.folder.name, emit)
        except (StoreError, Stopped):
            raise
        except Exception:  # a method that cannot be built is that run's failure alone
            located.folder.fail(traceback.format_exc())
            emit(MemberFailed(located.folder.id))
            continue
        members.append(member)
    setup = (work_clock(execution.device, options.threads) - began) / max(len(members), 1)
    for group in group_by_step(members, memory_of_cohort(options)):
        for cohort in Cohort(group, splits, teacher, execution).split_by_cache(shapes):
            note_lost_lines(cohort, emit)
            with shared(cohort, store, options, state):
                attach_accelerators(cohort, emit)
                emit(beginning_of(cohort))
                first_step, began = group[0].step, work_clock(execution.device, options.threads)
                fit(cohort, emit=emit, stop=stop)
            record_costs(cohort, first_step, setup, work_clock(execution.device, options.threads) - began, options, emit)


@contextmanager
def shared(cohort: Cohort, store: Store, options: WorkerOptions, state: WorkerState) -> Iterator[None]:
    """A block in which a cohort is trained, with further processes where the options say so.

    An error that leaves the block leaves the others in the middle of a step: they are ended, and the next cohort gets new ones.
    """
    if options.processes_per_run == 1:
        yield
        return
    if state.followers is None:
        state.followers = Followers(options.processes_per_run, options.device, state.plugins)
    try:
        state.followers.begin(cohort, store, options)
        yield
    except Stopped:
        raise
    except BaseException as error:
        state.followers.close()
        state.followers = None
        if is_of_group(error):
            raise ProcessesBroken("another process that trains these runs is gone") from error
        raise


def beginning_of(cohort: Cohort) -> TrainingBegun:
    """The event of a cohort that is about to train."""
    first, epochs = cohort.members[0], cohort.recipe.epochs
    role = role_of(first.folder, first.run)
    return TrainingBegun(
        role=role,
        ids=tuple(member.run.id for member in cohort.members),
        epochs=epochs,
        steps=cohort.steps_an_epoch * epochs,
        step=first.step,
        units=len(cohort.members) * UNITS_AN_EPOCH * first.step / cohort.steps_an_epoch,
        name=first.run.student.name if role == "teacher" else "",
    )


def role_of(folder: RunFolder, run: Run) -> Role:
    """What a run is trained for."""
    if is_teacher(folder):
        return "teacher"
    return "pretrain stage" if run.kind == "pretrain" else "student"


def group_by_step(members: Iterable[Member], memory: int) -> list[list[Member]]:
    """Members that stand at the same step, in groups that hold at most `memory` bytes together, or one member."""
    groups: list[list[Member]] = []
    group_bytes = 0
    for member in sorted(members, key=lambda member: (member.step, member.run.id)):
        member_bytes = int(member.cost["memory_bytes"]) if member.cost else 0
        if groups and groups[-1][0].step == member.step and group_bytes + member_bytes <= memory:
            groups[-1].append(member)
            group_bytes += member_bytes
        else:
            groups.append([member])
            group_bytes = member_bytes
    return groups


def report(folder: RunFolder, emit: Emit) -> None:
    """Emit how a run came out."""
    run, about = folder.read_plan()
    label, setting, role = run.objective.label, setting_text(run, about), role_of(folder, run)
    if folder.state() == "done":
        result = folder.result()
        val, test = result["last"]["val"], result["last"]["test"]
        task = task_named(run.data.task)
        head = task.headline.name
        emit(RunDone(folder.id, label, setting, run.seed, task.name, val and val[head], test[head], result["seconds"], role))
    elif folder.state() == "paused" and (epoch := folder.paused_after()) is not None:
        task, val = task_named(run.data.task), validation_at(folder.metrics, folder.id, epoch)
        value = number_in(val, task.headline.name)
        emit(RunPaused(folder.id, label, setting, run.seed, task.name, epoch, run.recipe.epochs, value))
    else:
        failure = folder.failure()
        emit(RunFailed(folder.id, label, setting, run.seed, failure.error, failure.part, failure.place, role))
