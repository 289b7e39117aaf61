"""The port of a task: its loss, its predictions, and what is measured of them, each metric declared once. Free of torch.

Everything else is derived: the fields of result.json and its page, the columns of tables, the metrics of studies, what
`kdzoo evaluate` compares, and by which number epochs, settings and rows are ranked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from kdzoo.text import NOT_ZERO, format_number

if TYPE_CHECKING:
    from torch import Tensor

Metrics = dict[str, float | int | None]
CHANCE_SIZE = 1e-3
"""the size of the test against chance: so often a network that has learnt nothing passes for one that has"""
CHANCE_POWER = 0.99
"""how often a network half-way between chance and perfection must pass the test, for its verdict to count"""


@dataclass(frozen=True)
class Case:
    """Predictions (N, K) on one part of the data, the targets of its N samples, and what the teacher predicts of them, if there is one."""

    predictions: Tensor
    targets: Tensor
    teacher: Tensor | None = None


@dataclass(frozen=True)
class Metric:
    """One number of a network's predictions, a mean over samples.

    name: its key in result.json; columns of tables are named after it. meaning: in words, for result.json's page. heading:
    in tables for a reader. unit: `share` is from 0 to 1 in files and in per cent for a reader, with differences in points.
    least, most: bounds of its values. null: when it has none, in words; empty where it always has one. of_teacher: whether
    it compares the student with its teacher. per_sample: whether one sample changes it by 1 / n, so that equal values
    differ by less. in_leaderboard: whether leaderboard.csv has its mean over seeds. since: the schema of result.json from which
    it is written; earlier results are read without it. aliases: what tables of others call it. beside: of a headline, further
    metrics that a table shows a reader next to it.
    """

    name: str
    meaning: str
    heading: str
    compute: Callable[[Case], float | None]
    unit: Literal["share", "nats", "number"] = "number"
    better: Literal["higher", "lower"] = "higher"
    least: float | None = None
    most: float | None = None
    null: str = ""
    of_teacher: bool = False
    per_sample: bool = False
    in_leaderboard: bool = True
    since: int = 1
    aliases: tuple[str, ...] = ()
    beside: tuple[Metric, ...] = ()

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.better == "higher" else -1

    @property
    def superlative(self) -> str:
        """What the best of its values is: `highest` or `lowest`."""
        return "highest" if self.better == "higher" else "lowest"

    @property
    def factor(self) -> int:
        """What its values are multiplied by for a reader."""
        return 100 if self.unit == "share" else 1

    @property
    def unit_words(self) -> str:
        """Its unit for a reader, as in `in per cent`; empty for a plain number."""
        return {"share": "in per cent", "nats": "in nats", "number": ""}[self.unit]

    @property
    def phrase(self) -> str:
        """`top-1 in per cent`, as it stands within a sentence."""
        return " ".join(filter(None, (self.heading, self.unit_words)))

    @property
    def title(self) -> str:
        """`Top-1 in per cent`, as it stands at the beginning of a sentence."""
        return self.phrase[0].upper() + self.phrase[1:]

    @property
    def difference_words(self) -> str:
        """The unit of its differences for a reader."""
        return {"share": "points", "nats": "nats", "number": "units"}[self.unit]

    def text(self, value: float | None) -> str:
        """A value for a reader; empty where there is none."""
        if value is None or math.isnan(value):
            return ""
        return format_number(self.factor * value, ".2f") if self.unit == "share" else format_number(value, ".4g")

    def with_unit(self, value: float | None) -> str:
        """A value for a reader with its unit, such as `93.20 %`."""
        return f"{self.text(value)}{' %' if self.unit == 'share' else ''}"

    def brief(self, value: float) -> str:
        """A value with its unit in as few digits as a line of progress takes, such as `93.2 %`."""
        return f"{self.factor * value:.1f} %" if self.unit == "share" else f"{value:.4g}"

    def difference_text(self, value: float) -> str:
        """A difference of two values for a reader, with its sign."""
        return format_number(self.factor * value, "+.2f") if self.unit == "share" else format_number(value, "+.4g")

    def bound_text(self, value: float) -> str:
        """An end of an interval of differences: in as many digits more as it takes to see on which side of zero it lies."""
        if self.unit != "share":
            return self.difference_text(value)
        texts = [format_number(self.factor * value, f"+.{digits}f") for digits in (2, 3, 4)]
        return next((text for text in texts if NOT_ZERO.search(text)), texts[0])

    def spread_text(self, value: float) -> str:
        """A standard deviation or an error for a reader."""
        return format_number(self.factor * value, ".2f") if self.unit == "share" else format_number(value, ".4g")


@dataclass(frozen=True)
class ClassList:
    """A list in result.json with a value for every class of the test set. since: the schema from which it is written."""

    name: str
    meaning: str
    kind: Literal["count", "share", "share or null"]
    since: int = 1


@dataclass(frozen=True)
class AgainstChance:
    """How predictions stand against a network that has learnt nothing, on so many samples.

    value, chance: the headline of the predictions, and that of such a network. above: whether it would come as far by chance
    in fewer than CHANCE_SIZE of all cases. tells: whether the samples are enough for that: a network half-way between chance
    and perfection passes with CHANCE_POWER. test: in words.
    """

    metric: Metric
    value: float
    chance: float
    samples: int
    above: bool
    tells: bool
    test: str

    @property
    def text(self) -> str:
        return f"{self.metric.heading} {self.metric.brief(self.value)}"

    @property
    def chance_text(self) -> str:
        return self.metric.brief(self.chance)


@dataclass(frozen=True)
class TargetColumn:
    """A column of targets that a task learns: its name, its number of classes, and the weight of its loss."""

    name: str
    classes: int
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Task:
    """headline: the metric that settings and rows are ranked by. tie_break: the one that decides between equals; None for none.

    loss: of a network's outputs (B, K), the targets (B,), the shares of the classes (B, K) where images are mixed, and label
    smoothing, a scalar, the mean over the samples that have a target; loss_name: its name among the parts of the loss.
    predict: from outputs (N, K) to the predictions (N, K) that are measured and kept. strata: for targets (N,) that all
    samples have, the group (N,) int64, numbered from 0, in whose share each is drawn. against_chance: predictions and targets.
    count_classes: of a case the lists of `class_lists`, by name. columns: where they are named, the columns of a data set that are
    learned, the first of which the headline is of; targets are (N, C) where there are several, and outputs have the scores of one
    column after those of the other (`multitask`). of_classes: whether targets are numbers of classes (int64), or
    measured numbers (float32), of which nothing can be mixed, smoothed, sought by class, or started as a logistic regression.
    of_features: whether networks have no classifier and give their embeddings (N, D), each of its own width (`features`): no class
    scores are there to read, and of labels, which are numbers of classes, nothing is learned.
    """

    name: str
    metrics: tuple[Metric, ...]
    headline: Metric
    loss: Callable[[Tensor, Tensor, Tensor | None, float], Tensor]
    loss_name: str
    predict: Callable[[Tensor], Tensor]
    strata: Callable[[Tensor], Tensor]
    against_chance: Callable[[Tensor, Tensor], AgainstChance]
    of_classes: bool = False
    of_features: bool = False
    tie_break: Metric | None = None
    class_lists: tuple[ClassList, ...] = ()
    count_classes: Callable[[Case], dict[str, Any]] = lambda case: {}
    columns: tuple[TargetColumn, ...] = ()

    def __post_init__(self) -> None:
        for metric in (self.headline, self.tie_break):
            assert metric is None or metric in self.metrics, f"{self.name}: {metric.name} is not among its metrics"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of its metrics, in their order."""
        return tuple(metric.name for metric in self.metrics)

    @cached_property
    def own_names(self) -> tuple[str, ...]:
        """The names of the metrics that a student has without its teacher."""
        return tuple(metric.name for metric in self.metrics if not metric.of_teacher)

    @property
    def several(self) -> tuple[TargetColumn, ...]:
        """Its columns where it learns several at once; none where there is one column of targets."""
        return self.columns if len(self.columns) > 1 else ()

    @cached_property
    def deciding(self) -> tuple[Metric, ...]:
        """The metrics that epochs and settings are chosen by: the headline, then the tie break."""
        return tuple(metric for metric in (self.headline, self.tie_break) if metric is not None)

    def metric(self, name: str) -> Metric | None:
        """A metric by name; None where the task has none of that name."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def measure(self, predictions: Tensor, targets: Tensor, teacher: Tensor | None = None) -> Metrics:
        """Every metric of (N, K) predictions against N targets; `n` is N."""
        case = Case(predictions, targets, teacher)
        return {"n": len(targets), **{metric.name: metric.compute(case) for metric in self.metrics}}

    def by_class(self, predictions: Tensor, targets: Tensor) -> dict[str, Any]:
        """What result.json has of every class of the test set."""
        return self.count_classes(Case(predictions, targets))

    def order(self, values: Mapping[str, Any]) -> tuple[float, ...]:
        """What metrics are ordered by, the larger the better: the headline, then the tie break."""
        return tuple(metric.sign * float(values[metric.name] or 0) for metric in self.deciding)

    def better(self, values: Mapping[str, Any], than: Mapping[str, Any]) -> bool:
        """Whether metrics are better than others; equal ones are not."""
        return self.order(values) > self.order(than)


def names_of(tasks: Sequence[Task]) -> tuple[str, ...]:
    """The metrics that any of several tasks has, by name, none twice."""
    return tuple(dict.fromkeys(name for task in tasks for name in task.names))
