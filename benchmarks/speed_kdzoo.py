"""kdzoo's sides: single runs and sweeps through its own step, and what bounds them: the student alone, the teacher alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from speed_clock import LeftOut, Side, synchronise
from speed_setup import CACHED_IMAGES, CacheSize, Setup, at_published_weights, cohort_for, cohort_of

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.needs import Need, Pass
from kdzoo.data.epoch import Inputs
from kdzoo.data.loader import fetch_once
from kdzoo.models.forward import outputs
from kdzoo.models.placement import autocast
from kdzoo.runs.metrics_file import JsonLines
from kdzoo.teachers.cache import TeacherCache
from kdzoo.training.batched import BatchedMembers, batch_members
from kdzoo.training.cohort import Cohort
from kdzoo.training.compiled import compile_students
from kdzoo.training.graphs import StepGraphs
from kdzoo.training.recorder import recorder_of
from kdzoo.training.train import NAN_CHECK_STEPS, fail_nonfinite, fit, open_answers, step

STOCK = 4
"""batches that are gathered beforehand where what is timed is not to gather them"""


def training(cohort: Cohort, *, replay: bool = False) -> Iterator[int]:
    """The loop of `fit` without what ends an epoch. replay: every epoch is the first one again, with its order and views.

    Raises RuntimeError where a run has dropped out: the rest would be faster than a sweep is.
    """
    number, epoch, epochs = 0, 0, cohort.recipe.epochs
    while True:
        shown = 0 if replay else epoch
        plan = cohort.plan_epoch(shown)
        answers = open_answers(cohort, plan, 0, lambda _: None)
        for loaded in plan.batches():
            step(cohort, plan, loaded, Progress(shown % epochs, epochs, number, cohort.steps_an_epoch * epochs), answers)
            number += 1
            if number % NAN_CHECK_STEPS == 0:
                fail_nonfinite(cohort)
            _raise_if_failed(cohort)
            yield len(loaded.index)
        epoch += 1


def trained(cohort: Cohort, *, replay: bool = False) -> Side:
    runs, kept = len(cohort.members), cohort.teacher_cache
    if kept is None:
        return Side(partial(next, training(cohort, replay=replay)), runs=runs)
    return Side(partial(next, training(cohort, replay=replay)), runs=runs, close=kept.delete, hits=partial(hit_share, kept))


def hit_share(cache: TeacherCache) -> float:
    """The share of the epochs' answers that were remembered, of the epochs that have begun."""
    return cache.hits / max(cache.lookups, 1)


def live(setup: Setup, runs: int) -> Side:
    """A sweep that asks the teacher in every step, once for all runs; 0 runs is the student alone."""
    return trained(cohort_for(setup, runs, "off"))


def methods(setup: Setup, names: Sequence[str]) -> Side:
    """Different methods, a run of each at its published weight, that ask the teacher in every step, once for all of them."""
    return trained(cohort_of(setup, at_published_weights(names), "off"))


def opening_seconds(setup: Setup, runs: int, images: int) -> float:
    """Seconds until an epoch's first batch can be trained: its order and views are drawn, its answers looked up, none known."""
    cohort = cohort_for(setup, runs, "auto", limit=images, teacher=4)
    assert cohort.teacher_cache is not None
    try:
        began = time.perf_counter()
        plan = cohort.plan_epoch(0)
        open_answers(cohort, plan, 0, lambda _: None)
        next(iter(plan.batches()))
        return time.perf_counter() - began
    finally:
        cohort.teacher_cache.delete()


def cold(setup: Setup, runs: int, images: int = CACHED_IMAGES) -> Side:
    """A sweep with the cache on, whose views are new: epoch after epoch of its own teacher, which nobody else fills in for."""
    return trained(cohort_for(setup, runs, "auto", limit=max(images, 4 * setup.batch), teacher=1))


def warm(setup: Setup, runs: int) -> Side:
    """A sweep whose every look-up hits: it repeats an epoch that it has been through once before it is timed."""
    cohort = cohort_for(setup, runs, "auto", limit=warm_images(setup), teacher=2)
    side = trained(cohort, replay=True)
    for _ in range(cohort.steps_an_epoch):
        side.step()
    assert cohort.teacher_cache is not None
    cohort.teacher_cache.lookups = cohort.teacher_cache.hits = 0  # what is reported is of the epochs after this one
    return side


def stacked(setup: Setup, runs: int) -> Side:
    """The warm sweep with its students as one batched computation. Raises LeftOut where they cannot be one."""
    return by_way(setup, runs, stack=True, graphs=False)


def by_way(setup: Setup, runs: int, *, stack: bool, graphs: bool) -> Side:
    """The warm sweep by one of the ways of `cohort_by_way`. Raises LeftOut where its students, or their steps, cannot be trained so."""
    cohort = cohort_by_way(setup, runs, stack=stack, graphs=graphs, limit=warm_images(setup))
    side = replayed(cohort)
    if cohort.graphs is not None and (notes := cohort.graphs.new_notes()):
        raise LeftOut(notes[0])
    return side


def cohort_by_way(setup: Setup, runs: int, *, stack: bool, graphs: bool, limit: int | None) -> Cohort:
    """A sweep with a teacher cache, its students as one where `stack` says so, their steps replayed as CUDA graphs where `graphs` does.

    limit: of the training images. Raises LeftOut where that cannot be.
    """
    recorder = recorder_of(setup.device)
    if graphs and isinstance(recorder, str):
        raise LeftOut(recorder)
    cohort = cohort_for(setup, runs, "auto", limit=limit, teacher=2)
    if stack:
        cohort.batched = stack_of(cohort, setup)
    if graphs and not isinstance(recorder, str):
        cohort.graphs = StepGraphs(recorder, cohort.learners, cohort.block)
    return cohort


def warm_images(setup: Setup) -> int:
    """Training images of a sweep whose every look-up hits: four batches, on a GPU more, lest what begins an epoch weighs too much."""
    batches = 4 if setup.device.type == "cpu" else 32
    return max(CACHED_IMAGES // 2, batches * setup.batch)


def channels_last(setup: Setup) -> bool:
    """Whether a student's maps lie channels last where it is trained by itself; of a stack torch chooses the layout."""
    (member,) = cohort_for(setup, 1, "off", limit=setup.classes).members
    weights = (weight for weight in member.network.parameters() if weight.ndim == 4 and min(weight.shape[1], weight.shape[2]) > 1)
    return next(weights).is_contiguous(memory_format=torch.channels_last)


def stack_of(cohort: Cohort, setup: Setup) -> BatchedMembers:
    """The students of a cohort as one. Raises LeftOut where they cannot be."""
    joined = batch_members(cohort.members, fetch_once(cohort.splits.train.images, torch.arange(2), setup.device))
    if not isinstance(joined, BatchedMembers):
        raise LeftOut(str(joined))
    return joined


def replayed(cohort: Cohort) -> Side:
    """A side that repeats its first epoch, which it has been through once."""
    side = trained(cohort, replay=True)
    for _ in range(cohort.steps_an_epoch):
        side.step()
    return side


def compiled(setup: Setup, runs: int) -> Side:
    """The warm sweep with its students run through torch.compile. Raises LeftOut where they cannot be."""
    cohort = cohort_for(setup, runs, "auto", limit=warm_images(setup), teacher=2)
    images = fetch_once(cohort.splits.train.images, torch.arange(cohort.block), setup.device)
    if why := compile_students(cohort.members, images):
        raise LeftOut(why)
    return replayed(cohort)


def stock(cohort: Cohort) -> Iterator[tuple[Inputs, Batch]]:
    """A few batches gathered beforehand, again and again."""
    plan, clock = cohort.plan_epoch(0), Progress(0, 1, 0, 1)
    made = [plan.gather(loaded, clock) for loaded in itertools.islice(plan.batches(), STOCK)]
    while True:
        yield from made


def teacher(setup: Setup) -> Side:
    """The teacher's forward alone."""
    cohort = cohort_for(setup, 1, "off")
    assert cohort.teacher is not None
    network, ready = cohort.teacher.network, stock(cohort)

    def act() -> int:
        seen, batch = next(ready)
        with torch.no_grad(), autocast(cohort.recipe, setup.device):
            network(seen[Pass.FIRST], Need.LOGITS)
        return len(batch.targets)

    return Side(act)


def bare(setup: Setup) -> Side:
    """The networks and the loss of a single run alone: teacher's forward, student's forward, loss and backward."""
    cohort = cohort_for(setup, 1, "off")
    assert cohort.teacher is not None
    (member,), network, ready = cohort.members, cohort.teacher.network, stock(cohort)
    student = member.network.train()
    parameters = list(student.parameters())

    def act() -> int:
        seen, batch = next(ready)
        with autocast(cohort.recipe, setup.device):
            with torch.no_grad():
                said = outputs(network, seen, member.objective.needs.teacher)
            learnt = outputs(student, seen, member.needs)
        member.objective(learnt, said, batch).total.backward()
        for parameter in parameters:
            parameter.grad = None
        return len(batch.targets)

    return Side(act)


def whole_fits(setup: Setup, runs: int, epochs: int, passes: Mapping[str, CacheSize]) -> list[dict[str, Any]]:
    """A real `fit` of a sweep with its evaluation and its files, once for each pass; a later one finds the cache filled."""
    found = []
    for name, cache in passes.items():
        recipe = setup.recipe().model_copy(update={"epochs": epochs})
        cohort = cohort_for(setup, runs, cache, teacher=3, recipe=recipe, test_images=len(setup.images.test.targets))
        for member in cohort.members:
            member.logger = JsonLines(member.folder.metrics, member.run.id, keep_through_step=0)
        synchronise(setup.device)
        began = time.perf_counter()
        fit(cohort, emit=lambda _: None, stop=lambda: False)
        synchronise(setup.device)
        spent = time.perf_counter() - began
        _raise_if_failed(cohort)
        record = {"cache": name, "runs": runs, "epochs": epochs, "seconds": spent}
        found.append({**record, "seconds_of_240_epochs_a_run": spent * 240 / epochs / runs})
    return found


def _raise_if_failed(cohort: Cohort) -> None:
    """Runs that have dropped out would make a sweep look faster than it is."""
    failed = [member.failure for member in cohort.members if member.failure is not None]
    if failed:
        raise RuntimeError(f"a run dropped out of the measurement: {failed[0]}")
