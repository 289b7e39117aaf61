"""Methods against a control of their table, each with its gain and the interval that holds for all of them at once."""

from __future__ import annotations

from dataclasses import dataclass

from kdzoo.suite.plan.config import KD, NONE
from kdzoo.suite.report.blocks import Block, Standing, position_of
from kdzoo.suite.report.comparisons import Comparisons, comparisons
from kdzoo.tasks.task import Metric


@dataclass(frozen=True)
class Rival:
    """A method's gain over a control, with the interval that holds for all rows of the table at once."""

    method: str
    difference: float
    low: float
    high: float
    metric: Metric

    def __str__(self) -> str:
        return f"{self.name} by {self.gain}"

    @property
    def name(self) -> str:
        """The method as a sentence names it."""
        return f"'{self.method}'"

    @property
    def gain(self) -> str:
        """The gain over the control with its sign and its interval."""
        low, high = self.metric.bound_text(self.low), self.metric.bound_text(self.high)
        return f"{self.metric.difference_text(self.difference)} [{low}, {high}]"

    @property
    def shortfall(self) -> str:
        """The loss against the control as a positive number, with its interval."""
        amount, low, high = (self.metric.text(-number) for number in (self.difference, self.high, self.low))
        return f"{amount} [{low}, {high}]"


def rivals_of(block: Block, control: str) -> list[Rival]:
    """The healthy methods of two seeds or more beside the controls, best first."""
    tests = comparisons(block, control)
    able = [s for s in tests.standings if s.record.method not in (KD, NONE) and len(s.done) > 1]
    return sorted((rival_of(tests, standing) for standing in able), key=lambda rival: -rival.difference)


def rival_of(tests: Comparisons, standing: Standing, family: int | None = None) -> Rival:
    """A method's gain over the control of `tests`; family: how many comparisons its interval holds for at once, the table's by default."""
    assert tests.contrast is not None
    at = position_of(tests.standings, standing)
    assert at is not None
    low, high = (float(ends[at]) for ends in tests.contrast.interval(family or tests.family))
    gain, metric = float(tests.contrast.mean[at]), standing.metric
    if metric.better == "lower":
        gain, low, high = -gain, -high, -low
    return Rival(standing.record.method, gain, low, high, metric)
