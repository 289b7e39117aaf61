"""A search within a budget by successive halving: after which epochs how many settings go on. Free of torch.

All settings are trained for a part of a run, the best third on validation for three times as long, and so on to whole runs
(Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943, with the factor 3 of Hyperband, https://arxiv.org/abs/1603.06560). All
settings of a rung come to its end before any goes on, so that what is chosen depends on the runs alone, never on which of them was
trained first; Optuna's and Ray's rules, which decide while others still train, cannot promise that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from kdzoo.errors import InputError
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.planned import PlannedRun
from kdzoo.text import number_of

FACTOR = 3
"""one in so many settings goes on to a rung that is so many times as long"""


@dataclass(frozen=True)
class Rung:
    """So many settings are trained up to the end of an epoch, which counts from 1."""

    epoch: int
    settings: int


def rungs(settings: int, seeds: int, epochs: int, budget: int, least: int) -> tuple[Rung, ...]:
    """The rungs of a search, the last of them of whole runs; raises InputError where the budget is too small.

    settings: how many are tried, each on so many seeds. epochs: of a whole run. budget: in whole runs. least: how many settings
    come to whole runs at the least. The first rung is as long as the budget allows, since short runs tell least; what is left goes
    to more settings on the last one. A single rung where everything can be trained to the end.
    """
    cheapest = 0
    for count in range(settings + 1):
        ends = [math.ceil(epochs / FACTOR ** (count - number)) for number in range(count + 1)]
        if any(end == following for end, following in itertools.pairwise(ends)):
            break
        schedule = [Rung(end, max(min(settings, least), math.ceil(settings / FACTOR**number))) for number, end in enumerate(ends)]
        cheapest = cost(schedule) * seeds
        if cheapest <= budget * epochs:
            return _with_rest(schedule, (budget * epochs - cheapest) // seeds)
    raise InputError(
        f"budget: {number_of(settings, 'setting')} on {number_of(seeds, 'seed')} cost at least "
        f"{number_of(math.ceil(cheapest / epochs), 'whole run')}, got {budget}"
    )


def cost(schedule: Iterable[Rung]) -> int:
    """What a search costs, in epochs a seed."""
    total = before = 0
    for rung in schedule:
        total += rung.settings * (rung.epoch - before)
        before = rung.epoch
    return total


def _with_rest(schedule: list[Rung], rest: int) -> tuple[Rung, ...]:
    """The same with as many more settings on the last rung as the rest of the budget, in epochs, is enough for."""
    if len(schedule) == 1:
        return tuple(schedule)
    *earlier, before, last = schedule
    more = rest // (last.epoch - before.epoch)
    return (*earlier, before, Rung(last.epoch, min(before.settings, last.settings + more)))


def settings_of(students: Iterable[PlannedRun]) -> dict[str, tuple[PlannedRun, ...]]:
    """The runs of each setting, one a seed."""
    found: dict[str, list[PlannedRun]] = {}
    for planned in students:
        found.setdefault(str(planned.run.objective), []).append(planned)
    return {key: tuple(runs) for key, runs in found.items()}


def search_rungs(config: BenchConfig, students: Iterable[PlannedRun]) -> tuple[Rung, ...]:
    """The rungs of a bench with a budget; raises InputError where that is too small for its settings."""
    planned = tuple(students)
    least = len(config.controls) + 1
    epochs = max(one.run.recipe.epochs for one in planned)
    return rungs(len(settings_of(planned)), len(config.seeds), epochs, config.budget or 0, least)


def faults_of_budget(config: BenchConfig, students: Iterable[PlannedRun]) -> list[str]:
    """Why a bench cannot be searched within its budget: each reason once."""
    if config.budget is None:
        return []
    planned = tuple(students)
    faults = []
    if len({str(one.about["pair"]) for one in planned}) > 1:
        faults.append("budget: a search is among the settings of one pair; expected one pair")
    if any(not one.run.data.val_fraction for one in planned):
        faults.append("budget: settings go on by their validation images, and none are held out; expected --val-fraction above 0")
    if config.oracle:
        faults.append("budget: a search never looks at the test images, which --oracle does after every epoch; leave one of them out")
    if config.control_seeds is not None:
        faults.append("budget: settings are compared over the same seeds; expected no --control-seeds")
    if config.edition is not None:
        faults.append("budget: the tables of an edition have every method at whole runs; leave out --edition or --budget")
    if config.budget >= len(planned) > 0:
        faults.append(
            f"budget: all {number_of(len(planned), 'run')} cost no more than that; leave it out, or give less than {len(planned)}"
        )
    if not faults and planned:
        try:
            search_rungs(config, planned)
        except InputError as error:
            faults += error.problems
    return faults


def rungs_in_words(schedule: Iterable[Rung]) -> str:
    """`24 settings to epoch 2, 8 to epoch 5, 4 to epoch 15`."""
    first, *others = schedule
    further = [f"{rung.settings} to epoch {rung.epoch}" for rung in others]
    return ", ".join([f"{number_of(first.settings, 'setting')} to epoch {first.epoch}", *further])
