"""What a study compares with numbers of a paper."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from kdzoo.runs.fields import Number, Spec
from kdzoo.suite.study.which import as_tuple
from kdzoo.tasks.classification import CLASSIFICATION

TEACHER = "teacher"
"""as the method of a measurement: the teacher itself"""


class Cell(Spec):
    """A number of a stage, seed by seed: a metric on the test set after the last epoch.

    method: of a bench, a method, `none` (the student alone) or `teacher`; a step has none. metric: top1, error_rate, errors
    (images) and so on; `errors.3` and `recall.3` of class 3; or the place of a number in a run's result.json, or in a
    step's result, with dots, such as `best.test.top1`. phase: `refit` where there is one unless given.
    """

    stage: str | None = None
    method: str | None = None
    pair: str | None = None
    setting: dict[str, JsonValue] = {}
    phase: Literal["sweep", "refit"] | None = None
    metric: str = CLASSIFICATION.headline.name


class Difference(Spec):
    """One cell minus another."""

    of: Cell
    minus: Cell


class Measure(Spec):
    """What is compared with a number of the paper: a cell, minus another one, perhaps as a share of a further difference.

    paper, tolerance: the published number and how far the mean may lie from it in either direction. between: instead of
    them, the lowest and the highest mean that bear the claim out; null for no bound. Accuracies, their differences and
    shares are in per cent. reason: a known cause of a number that is not reached, or is reached too easily.
    """

    name: str
    of: Cell
    minus: Cell | None = None
    over: Difference | None = None
    paper: Number | None = None
    tolerance: Annotated[Number, Field(ge=0)] | None = None
    between: Annotated[tuple[Number | None, Number | None], BeforeValidator(as_tuple)] | None = None
    reason: str = ""

    @model_validator(mode="after")
    def _judged(self) -> Self:
        if (self.paper is None) != (self.tolerance is None):
            raise ValueError("paper and tolerance: expected both or neither")
        if (self.paper is None) == (self.between is None):
            raise ValueError("expected paper with tolerance, or between")
        if self.between is not None and self.between == (None, None):
            raise ValueError("between: expected a lowest or a highest number")
        if self.bounds[0] > self.bounds[1]:
            raise ValueError(f"between: expected the lower number first, got {self.bounds[0]:g} and {self.bounds[1]:g}")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest mean that reach it."""
        if self.paper is not None and self.tolerance is not None:
            return self.paper - self.tolerance, self.paper + self.tolerance
        low, high = self.between or (None, None)
        return -math.inf if low is None else low, math.inf if high is None else high

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in (self.of, self.minus, *((self.over.of, self.over.minus) if self.over else ())) if cell is not None)


class PublishedTable(Spec):
    """A measurement for every number of a published table (`configs/published`) whose pair and method a stage trains.

    instead: what the stage trains in the place of a method of the table, such as a variant of it. settings: by method of the
    table, its setting where the stage tries several. A number of the best epoch on the test set is compared with ours
    (`oracle.test.top1`) where the stage records it.
    """

    table: str
    stage: str
    tolerance: Annotated[Number, Field(ge=0)]
    instead: dict[str, str] = {}
    settings: dict[str, dict[str, JsonValue]] = {}
    reason: str = ""
