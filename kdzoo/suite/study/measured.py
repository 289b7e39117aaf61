"""A measurement of a study: its values by seed, and whether they reach the number of the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kdzoo.suite.report.error_model import sample_sd
from kdzoo.suite.report.intervals import beside_single, mean_interval, ratio_interval
from kdzoo.suite.study.measures import Measure
from kdzoo.suite.study.verdicts import ABOVE, BELOW, BY_MEAN, MISSING, OPEN, REACHED

ROUNDING = 9
"""decimals to which numbers are compared with bounds"""


@dataclass(frozen=True)
class Measured:
    """A measurement with its values by seed, in the words and units of the table; why there is none in `reason`.

    resolution: what one test image makes of a value; equal values differ by less than that. wholes: by seed, the difference that
    the values are a share of; a share is the ratio of the two means. single: whether a single training stands beside every
    seed, such as the teacher's. failed: how many runs failed.
    """

    measure: Measure
    values: Mapping[int, float]
    resolution: float
    planned: int
    reason: str
    wholes: Mapping[int, float] | None = None
    single: bool = False
    failed: int = 0

    @property
    def mean(self) -> float:
        if not self.values:
            return math.nan
        mean = float(np.mean(list(self.values.values())))
        return mean if self.wholes is None else 100 * mean / float(np.mean(list(self.wholes.values())))

    @property
    def sd(self) -> float:
        return sample_sd(list(self.values.values())) if self.wholes is None else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        if not self.values:
            return math.nan, math.nan
        values = list(self.values.values())
        if self.wholes is not None:
            low, high = ratio_interval(values, [self.wholes[seed] for seed in self.values])
            return 100 * low, 100 * high
        interval = mean_interval(values, self.resolution)
        return beside_single(interval, len(values)) if self.single else interval

    @property
    def reached(self) -> str:
        """Whether the mean lies within the bounds, and whether its whole 95 % interval does."""
        (lowest, highest), (low, high) = self.measure.bounds, self.interval
        if not self.values:
            return MISSING
        if self.failed:
            return OPEN
        if exceeds(self.mean, highest):
            return ABOVE
        if exceeds(lowest, self.mean):
            return BELOW
        inside = not (math.isnan(low) or exceeds(lowest, low) or exceeds(high, highest))
        return REACHED if inside else BY_MEAN


def exceeds(one: float, bound: float) -> bool:
    """Whether a number passes a bound by more than floating point makes: one that is met is not passed."""
    return one > bound and round(one - bound, ROUNDING) > 0
