"""The training step, the cohort and `fit`: read this file first.

A cohort is a group of runs that see the same batches: same data, teacher, recipe and seed. One augmentation and one
teacher forward serve all of them; a single run is a cohort of one. How runs are grouped changes no number: everything
random is a pure function of (seed, epoch, sample) or (seed, step), and a run that fails leaves the others untouched.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from functools import partial

from kdzoo.contract.batch import Progress
from kdzoo.contract.settings import current_settings
from kdzoo.data.epoch import EpochPlan, LoadedBatch
from kdzoo.errors import InputError, KdzooError
from kdzoo.runs.atomic import StoreError
from kdzoo.runs.events import CacheUse, Emit, MemberFailed, Note, StepsTaken, emit_notes
from kdzoo.teachers.answers import CachedAnswers, is_another_teachers
from kdzoo.teachers.teacher import Answers
from kdzoo.training.checkpoint import refuse_nonfinite_weights, write_checkpoint
from kdzoo.training.cohort import Cohort
from kdzoo.training.finish import close_epoch, finish, pause, skipped_steps
from kdzoo.training.graphs import learn
from kdzoo.training.member import Member, StepInputs
from kdzoo.training.processes import ProcessesBroken, is_of_group

NAN_CHECK_STEPS = 50
"""steps from one look for a NaN or infinite loss to the next; in between nothing is copied from the device"""

GO_ON, SAVE, STOP = range(3)
"""what is due between two steps"""

UNITS_AN_EPOCH = 1000
"""units of progress that an epoch of one run counts as"""


class Stopped(KdzooError):
    """Training was asked to stop; every run of the cohort has a checkpoint."""


def step(cohort: Cohort, plan: EpochPlan, loaded: LoadedBatch, clock: Progress, answers: Answers | None) -> None:
    """One step of every member on one batch: the same views, and the teacher's answers to them."""
    inputs, batch = plan.gather(loaded, clock)
    teacher = None if answers is None else answers.at(loaded.positions, inputs)
    learn_batch(cohort, StepInputs(inputs, teacher, batch, loaded.size))


def learn_batch(cohort: Cohort, step_inputs: StepInputs) -> None:
    """One step of every member on a batch and the teacher's outputs for it."""
    before = current_settings()
    if cohort.graphs is not None:
        cohort.graphs.load_batch(step_inputs)
    train_step = learn if cohort.graphs is None else cohort.graphs.learn
    if cohort.batched is not None:
        train_step(cohort.batched, step_inputs)
    for member in cohort.unbatched:
        with member.isolate_failure(before):
            train_step(member, step_inputs)
        refuse_to_go_on_alone(cohort, member)


def refuse_to_go_on_alone(cohort: Cohort, member: Member) -> None:
    """Raises ProcessesBroken where a member has failed in this process, while others that train it wait for what it computes."""
    if cohort.processes is not None and member.failure is not None and not member.diverged:
        raise ProcessesBroken(f"{member.run.id} failed in process {cohort.processes.shard.rank} of {cohort.processes.shard.count}")


def fit(cohort: Cohort, *, emit: Emit, stop: Callable[[], bool]) -> None:
    """Train the members, all at the same step, to the end of the recipe and write the result of each.

    Where the options ask for fewer epochs, they are paused there with a checkpoint, from which they resume exactly.

    A run that fails is reported by an event of its own before the next step. Raises Stopped, with every member checkpointed,
    when `stop` says so, and StoreError when results cannot be written.
    """
    failed_ids: set[str] = set()
    steps = cohort.steps_an_epoch * cohort.recipe.epochs
    start = cohort.members[0].step
    last_reported = start
    last_save = time.monotonic()
    for epoch in range(start // cohort.steps_an_epoch, cohort.last_epoch):
        began = time.monotonic()
        plan = cohort.plan_epoch(epoch)
        first = max(start - epoch * cohort.steps_an_epoch, 0)
        answers = open_answers(cohort, plan, first, emit)
        for number, loaded in enumerate(plan.batches(first), start=epoch * cohort.steps_an_epoch + first):
            step(cohort, plan, loaded, Progress(epoch, cohort.recipe.epochs, number, steps), answers)
            if (number + 1) % NAN_CHECK_STEPS == 0 or (number + 1) % cohort.steps_an_epoch == 0:
                fail_nonfinite(cohort)
                emit_notes([] if cohort.graphs is None else cohort.graphs.new_notes(), emit)
                ids = [member.run.id for member in cohort.active]
                units = len(ids) * UNITS_AN_EPOCH * (number + 1 - last_reported) / cohort.steps_an_epoch
                emit(StepsTaken(tuple(ids), epoch, number + 1, steps, units))
                last_reported = number + 1
            emit_failures(cohort, failed_ids, emit)
            if not cohort.active:
                return
            if (number + 1) % cohort.steps_an_epoch != 0:  # an epoch's end is saved after its line is written
                began = share_time(cohort, began)
                last_save = save_if_due(cohort, last_save, stop)
        for member in cohort.active:
            attempt(cohort, member, partial(close_epoch, cohort, member, epoch))
        emit_failures(cohort, failed_ids, emit)
        began = share_time(cohort, began)
        if epoch + 1 < cohort.last_epoch:
            last_save = save_if_due(cohort, last_save, stop)
    if cohort.teacher_cache is not None:
        cohort.teacher_cache.flush()
        emit_notes(cohort.teacher_cache.last_notes(), emit)
        emit(CacheUse(**cohort.teacher_cache.report()))
    if cohort.last_epoch < cohort.recipe.epochs:
        for member in cohort.active:
            attempt(cohort, member, partial(pause, cohort, member))
        emit_failures(cohort, failed_ids, emit)
        close_loggers(cohort)
        return
    for member in cohort.active:
        attempt(cohort, member, partial(finish, cohort, member, emit))
        if skipped := skipped_steps(member).get("skipped_steps"):
            text = f"{member.run.id}: {skipped} of {member.step} steps were skipped because their gradients overflowed in float16"
            emit(Note(text))
    emit_failures(cohort, failed_ids, emit)
    close_loggers(cohort)


def open_answers(cohort: Cohort, plan: EpochPlan, first: int, emit: Emit) -> Answers | None:
    """The teacher's answers for an epoch. A cache that turns out to be another teacher's is deleted, with a note, once."""
    answers, teacher_cache = cohort.open_answers(plan, first), cohort.teacher_cache
    if teacher_cache is None:
        return answers
    if isinstance(answers, CachedAnswers) and not teacher_cache.checked and answers.first_known() is not None:
        teacher_cache.checked = True
        if is_another_teachers(answers, plan):
            teacher_cache.delete()
            cohort.teacher_cache = None
            emit(Note("the teacher cache differs from this teacher's outputs; it is computed again"))
            answers = cohort.open_answers(plan, first)
    emit_notes(teacher_cache.new_notes(), emit)
    return answers


def emit_failures(cohort: Cohort, failed_ids: set[str], emit: Emit) -> None:
    """Emit an event for each member that has failed and is not in `failed_ids` yet, and add it there."""
    for member in cohort.members:
        if member.failure is not None and member.run.id not in failed_ids:
            failed_ids.add(member.run.id)
            emit(MemberFailed(member.run.id))


def save_if_due(cohort: Cohort, last_save: float, stop: Callable[[], bool]) -> float:
    """Checkpoint every member where that is due or training is to stop; returns the time of the last checkpoint.

    A member with a NaN or infinite loss or weight fails here, so that its last checkpoint stays usable.
    """
    due = STOP if stop() else SAVE if time.monotonic() - last_save > cohort.execution.options.checkpoint_seconds else GO_ON
    if cohort.processes is not None:
        due = cohort.processes.agree(due)
    if due == GO_ON:
        return last_save
    stopping = due == STOP
    fail_nonfinite(cohort)
    for member in cohort.active:
        attempt(cohort, member, partial(refuse_nonfinite_weights, member))
    for member in cohort.active if cohort.writes else ():
        attempt(cohort, member, partial(write_checkpoint, member))
    if cohort.teacher_cache is not None:
        cohort.teacher_cache.flush()
    if stopping:
        close_loggers(cohort)
        raise Stopped("training was stopped; run the same command to resume")
    return time.monotonic()


def close_loggers(cohort: Cohort) -> None:
    for member in cohort.active:
        if member.logger is not None:
            member.logger.close()


def share_time(cohort: Cohort, began: float) -> float:
    """Add the time since `began` to the active members in equal shares; returns the time now."""
    now = time.monotonic()
    for member in cohort.active:
        member.seconds += (now - began) / len(cohort.active)
    return now


def attempt(cohort: Cohort, member: Member, act: Callable[[], None]) -> None:
    """Run `act`, which concerns one member; an exception fails that member alone, unless it is about what all of them need."""
    try:
        act()
    except (StoreError, InputError, ProcessesBroken):
        raise
    except (Exception, SystemExit) as error:  # kept with its traceback, as in `Member.isolate_failure`
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise StoreError(f"cannot write below {member.folder.path}: {error.strerror}") from error
        if is_of_group(error):
            raise ProcessesBroken(f"{member.run.id}: another process that trains it is gone") from error
        member.fail()
    refuse_to_go_on_alone(cohort, member)


def fail_nonfinite(cohort: Cohort) -> None:
    """Fail the members whose loss has become NaN or infinite."""
    for member in cohort.active:
        attempt(cohort, member, member.fail_if_nonfinite)
