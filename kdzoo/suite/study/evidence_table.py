"""The numbers of a study beside those of its paper, as results.csv and for a reader."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from kdzoo.suite.study.measured import Measured
from kdzoo.suite.study.measures import Measure
from kdzoo.suite.study.metrics import is_count
from kdzoo.text import format_number

COLUMNS = ("measure", "paper", "tolerance", "lowest", "highest", "n", "planned", "mean", "sd", "low", "high", "reached", "reason")


def evidence_frame(measured: Iterable[Measured]) -> pd.DataFrame:
    """A row a measurement, as numbers."""
    rows = []
    for one in measured:
        lowest, highest = one.measure.bounds
        low, high = one.interval
        rows.append(
            {
                "measure": one.measure.name,
                "paper": one.measure.paper,
                "tolerance": one.measure.tolerance,
                "lowest": None if math.isinf(lowest) else lowest,
                "highest": None if math.isinf(highest) else highest,
                "n": len(one.values),
                "planned": one.planned,
                "mean": one.mean,
                "sd": one.sd,
                "low": low,
                "high": high,
                "reached": one.reached,
                "reason": one.reason or None,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def shown_frame(measured: Iterable[Measured]) -> pd.DataFrame:
    """The same for a reader."""
    rows = [
        {
            "measure": one.measure.name,
            "paper": _expected(one.measure),
            "n": f"{len(one.values)}" if len(one.values) >= one.planned else f"{len(one.values)} of {one.planned}",
            "measured": _number(one.mean, one.measure) + ("" if math.isnan(one.sd) else f" ± {_number(one.sd, one.measure)}"),
            "95 % interval": "" if math.isnan(one.interval[0]) else f"[{', '.join(_number(end, one.measure) for end in one.interval)}]",
            "reached": one.reached,
            "known reason": one.reason,
        }
        for one in measured
    ]
    return pd.DataFrame(rows, dtype=object)


def _expected(measure: Measure) -> str:
    """`74.92 ± 0.6`, or the bounds in words."""
    if measure.paper is not None:
        return f"{measure.paper:g} ± {measure.tolerance:g}"
    low, high = measure.bounds
    if math.isinf(high):
        return f"at least {low:g}"
    return f"at most {high:g}" if math.isinf(low) else f"{low:g} to {high:g}"


def _number(value: float, measure: Measure) -> str:
    """Two decimals, or one where images are counted."""
    is_whole = is_count(measure.of.metric) and measure.over is None
    return "" if math.isnan(value) else format_number(value, f".{1 if is_whole else 2}f")
