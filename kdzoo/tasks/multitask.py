"""Several tasks at once: a classification of every column of targets, learned by one network with a head for each.

A network's outputs (B, K) are the scores of the first column, then those of the second, and so on; targets are (B, C). The loss is
sum_c w_c CE_c. The first column is the primary one: the headline, the tie break and the lists by class are its own, under their
names in a classification; a metric of a further column is COLUMN.METRIC. The name of such a task says all of it,
`digit:10+speaker:6` or, with weights of its own, `0.7*digit:10+0.3*speaker:6`, so that a run's specification and a result name the
task and nothing else. One column alone, `speaker:6`, is a classification of it. Importing it needs no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.task import AgainstChance, Case, Metric, TargetColumn, Task

if TYPE_CHECKING:
    from torch import Tensor

ABSENT = math.inf
"""stands for the predictions of a column that a network does not score: no log-probability is above 0"""
NAME = r"[A-Za-z][A-Za-z0-9_]*"
COLUMN = re.compile(rf"(?:(?P<weight>[0-9.e-]+)\*)?(?P<name>{NAME}):(?P<classes>[1-9][0-9]*)")


def columns_of_name(name: str) -> tuple[TargetColumn, ...] | None:
    """The columns that a task's name lists, or None for the name of another kind of task."""
    found = [match for part in name.split("+") if (match := COLUMN.fullmatch(part)) is not None]
    if len(found) < len(name.split("+")):
        return None
    usual = 1 / len(found)
    return tuple(TargetColumn(one["name"], int(one["classes"]), float(one["weight"] or usual)) for one in found)


def name_of_columns(columns: Sequence[TargetColumn]) -> str:
    """The name of the task that learns these columns; weights stand in it unless all are one over the number of columns."""
    alike = all(column.weight == 1 / len(columns) for column in columns)
    weights = ["" if alike else f"{column.weight:.12g}*".replace("e+", "e") for column in columns]
    return "+".join(f"{weight}{column.name}:{column.classes}" for weight, column in zip(weights, columns, strict=True))


@cache
def learn_columns(columns: tuple[TargetColumn, ...]) -> Task:
    """The task of these columns, the first of which is the primary one."""
    if len(columns) == 1:
        return replace(CLASSIFICATION, name=name_of_columns(columns), columns=columns)
    head, tie_break = CLASSIFICATION.headline, CLASSIFICATION.tie_break
    further = [{metric: _of_column(metric, columns, place) for metric in CLASSIFICATION.metrics} for place in range(1, len(columns))]
    primary = {metric: _of_column(metric, columns, 0) for metric in CLASSIFICATION.metrics}
    primary[head] = replace(primary[head], beside=tuple(own[head] for own in further))
    return Task(
        name_of_columns(columns),
        metrics=tuple(metric for own in (primary, *further) for metric in own.values()),
        headline=primary[head],
        tie_break=None if tie_break is None else primary[tie_break],
        loss=lambda logits, targets, shares, smoothing: _loss(columns, logits, targets, smoothing),
        loss_name=CLASSIFICATION.loss_name,
        predict=lambda logits: _predict(columns, logits),
        strata=lambda targets: targets[:, 0],
        against_chance=lambda predictions, targets: _against_chance(columns, predictions, targets),
        class_lists=CLASSIFICATION.class_lists,
        count_classes=lambda case: _count_classes(columns, case),
        columns=columns,
    )


def slices_of(columns: Sequence[TargetColumn]) -> dict[str, slice]:
    """Which of a network's scores belong to each column."""
    ends = list(accumulate(column.classes for column in columns))
    return {column.name: slice(end - column.classes, end) for column, end in zip(columns, ends, strict=True)}


@cache
def for_teacher(task: Task, names: tuple[str, ...]) -> Task:
    """The same task for a network that scores some of the columns alone, in this order: its predictions lack the others."""
    own = tuple(column for name in names for column in task.columns if column.name == name)
    return replace(task, predict=lambda logits: _spread(task.columns, own, _predict(own, logits)))


def _loss(columns: Sequence[TargetColumn], logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    losses = [
        column.weight * CLASSIFICATION.loss(logits[:, part], targets[:, place], None, smoothing)
        for place, (column, part) in enumerate(zip(columns, slices_of(columns).values(), strict=True))
    ]
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss
    return total


def _predict(columns: Sequence[TargetColumn], logits: Tensor) -> Tensor:
    """Log-probabilities (N, K) of logits (N, K), of each column by itself."""
    import torch

    return torch.cat([CLASSIFICATION.predict(logits[:, part]) for part in slices_of(columns).values()], dim=1)


def _spread(columns: Sequence[TargetColumn], own: Sequence[TargetColumn], predictions: Tensor) -> Tensor:
    """The predictions of some columns at their places among all of them."""
    whole = predictions.new_full((len(predictions), sum(column.classes for column in columns)), ABSENT)
    places = slices_of(columns)
    for name, part in slices_of(own).items():
        whole[:, places[name]] = predictions[:, part]
    return whole


def _is_absent(predictions: Tensor) -> bool:
    return len(predictions) > 0 and bool((predictions[0] == ABSENT).all())


def _case_of(columns: Sequence[TargetColumn], place: int, case: Case) -> Case | None:
    """A column's part of a case; None where the predictions lack it."""
    part = slices_of(columns)[columns[place].name]
    predictions, teacher = case.predictions[:, part], None if case.teacher is None else case.teacher[:, part]
    if _is_absent(predictions):
        return None
    return Case(predictions, case.targets[:, place], None if teacher is None or _is_absent(teacher) else teacher)


def _of_column(metric: Metric, columns: Sequence[TargetColumn], place: int) -> Metric:
    """A metric of a classification for one of several columns; None of predictions that lack it."""
    name = columns[place].name

    def compute(case: Case) -> float | None:
        own = _case_of(columns, place, case)
        return None if own is None else metric.compute(own)

    return replace(
        metric,
        name=metric.name if place == 0 else f"{name}.{metric.name}",
        meaning=f"{metric.meaning}, of the column {name}",
        heading=f"{name} {metric.heading}",
        compute=compute,
        null="; ".join(filter(None, (metric.null, f"of a teacher that does not score {name}"))),
        aliases=metric.aliases if place == 0 else (),
    )


def _against_chance(columns: Sequence[TargetColumn], predictions: Tensor, targets: Tensor) -> AgainstChance:
    """Of the columns that are scored, the first that is at chance, where all can be told from it; else the first that is not above."""
    cases = {place: _case_of(columns, place, Case(predictions, targets)) for place in range(len(columns))}
    verdicts: list[AgainstChance] = []
    for place, case in cases.items():
        if case is None:
            continue
        labelled = case.targets >= 0
        verdict = CLASSIFICATION.against_chance(case.predictions[labelled], case.targets[labelled])
        heading = f"{columns[place].name} {verdict.metric.heading}"
        verdicts.append(replace(verdict, metric=replace(verdict.metric, heading=heading)))
    return next((one for one in verdicts if not one.above and one.tells), next((one for one in verdicts if not one.above), verdicts[0]))


def _count_classes(columns: Sequence[TargetColumn], case: Case) -> dict[str, Any]:
    """The lists by class of the primary column; None each where the predictions lack it."""
    own = _case_of(columns, 0, case)
    return dict.fromkeys(one.name for one in CLASSIFICATION.class_lists) if own is None else CLASSIFICATION.count_classes(own)
