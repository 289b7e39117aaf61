"""What a search within a budget has left to train: the runs of the rung that it stands in, and which share of their epochs."""

from __future__ import annotations

from dataclasses import dataclass

from kdzoo.runs.metrics_file import validation_at
from kdzoo.runs.store import RunFolder
from kdzoo.suite.plan.budget import cost, search_rungs, settings_of
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.planned import Plan, PlannedRun
from kdzoo.suite.report.promotion import promoted_settings


@dataclass(frozen=True)
class Left:
    """The runs that may still be trained, done ones among them, and which share of the epochs that they lack."""

    runs: tuple[PlannedRun, ...]
    share: float


def left_of(config: BenchConfig, plan: Plan) -> Left:
    """What a bench's plan has left: of a search the runs of its first rung that is not over, or of its last; else all, to the end."""
    if config.budget is None or not plan.students:
        return Left(plan.students, 1.0)
    settings, schedule = settings_of(plan.students), search_rungs(config, plan.students)
    names, before, number = list(settings), 0, 0
    for number, rung in enumerate(schedule[:-1]):
        folders = {name: [plan.store.run(one.run.id) for one in settings[name]] for name in names}
        if not all(_has_reached(folder, rung.epoch) for of_setting in folders.values() for folder in of_setting):
            break
        names, before = promoted_settings(folders, rung.epoch, schedule[number + 1].settings, config.controls), rung.epoch
    else:
        number = len(schedule) - 1
    trained = cost(schedule[number:]) - before * schedule[number].settings
    whole = schedule[number].settings * (schedule[-1].epoch - before)
    return Left(tuple(one for name in names for one in settings[name]), trained / whole)


def _has_reached(folder: RunFolder, epoch: int) -> bool:
    """Whether a run needs no training up to an epoch; one that goes on from there may be under way."""
    return folder.is_over(epoch) or validation_at(folder.metrics, folder.id, epoch) is not None
