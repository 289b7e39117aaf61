"""What finished runs have cost, kept on this machine for the estimates of later benches."""

from __future__ import annotations

import time

import torch

from kdzoo.data.split import Splits
from kdzoo.data.views import output_shape
from kdzoo.runs.atomic import StoreError
from kdzoo.runs.costs import RunCost, Work, keep_costs, kind_of
from kdzoo.runs.environment import machine_name
from kdzoo.runs.events import Emit, Note
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.recipe import Recipe, steps_per_epoch
from kdzoo.training.cohort import Cohort
from kdzoo.training.cost import evaluation_seconds


def work_clock(device: torch.device, threads: int) -> float:
    """A reading in seconds of work: processor time divided by the threads, which other programs do not change; on a GPU the clock's."""
    return time.perf_counter() if device.type == "cuda" else time.process_time() / threads


def steps_an_epoch(splits: Splits, recipe: Recipe) -> int:
    """Training steps in an epoch of these data."""
    return steps_per_epoch(len(splits.train.targets), recipe.batch_size, drop_last=recipe.drop_last)


def work_of(splits: Splits, recipe: Recipe, steps: int) -> Work:
    """The work of so many steps, with the evaluations that go with them."""
    validation = 0 if splits.val is None else len(splits.val.targets)
    epochs = -(-steps // max(steps_an_epoch(splits, recipe), 1))
    return Work.of(recipe.batch_size, steps, epochs, validation, len(splits.test.targets))


def seen_shape(splits: Splits, recipe: Recipe) -> tuple[int, int, int]:
    """Channels, height and width of what the networks see."""
    channels, height, width = splits.train.images.shape[1:]
    return (channels, *output_shape(recipe.augment, height, width))


def record_costs(cohort: Cohort, first_step: int, setup: float, seconds: float, options: WorkerOptions, emit: Emit) -> None:
    """Record what the members of a cohort have cost that has trained from a step to the end, unless one of them failed.

    setup: seconds before the first step, of each member. seconds: of all that follows. What evaluation does not take of it,
    they share in proportion to what each costs alone.
    """
    if len(cohort.active) < len(cohort.members):
        return
    ratios = [float((member.cost or {}).get("time_ratio") or 1.0) for member in cohort.members]
    work = work_of(cohort.splits, cohort.recipe, cohort.steps_an_epoch * cohort.recipe.epochs - first_step)
    machine = machine_name(cohort.execution.device)
    evaluated = [evaluation_seconds(cohort, member) for member in cohort.members]
    training = max(seconds - sum(evaluated) * work.evaluated, 0.0)
    costs = {
        kind_of(member.run, seen_shape(cohort.splits, cohort.recipe), options, machine): RunCost(
            setup, training * ratio / sum(ratios) / work.trained, its_evaluation
        )
        for member, ratio, its_evaluation in zip(cohort.members, ratios, evaluated, strict=True)
    }
    try:
        keep_costs(costs)
    except (OSError, StoreError) as error:
        emit(Note(f"costs for later estimates are not kept: {error}"))
