"""The table of a race for a reader."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from kdzoo.suite.plan.config import KD, NONE
from kdzoo.suite.plan.race import Race
from kdzoo.suite.report.cells import interval_words, method_words, spread_words
from kdzoo.suite.study.published_gains import known_gains
from kdzoo.tasks.task import Metric

NOTES = (
    "with the interval of this row by itself, by the "
    "table's error model (`leaderboard.md` in the stage's folder has the intervals for all rows at once). added seeds: the same "
    "difference on the added seeds alone; the rule selected rows by the first seeds, on which selected rows therefore look too good. "
    "detectable: the smallest true difference to tuned KD that such a row would show with 80 % power. selected: why the rule gave a row "
    "more seeds. passes: forward and backward passes of the student and forward passes of the teacher in a step; MACs: "
    "multiply-accumulates of training, the student alone being 1; hours: of one core, of all runs of the method, those that chose its "
    "setting too. published: difference to plain KD on CRD's thirteen pairs at 32x32 pixels, the mean over pairs [least, most], without "
    "numbers copied from earlier tables."
)


def meanings(headline: Metric) -> str:
    """What the columns of a race's table mean, of a task with this headline."""
    whole = "per cent of the test images" if headline.unit == "share" else f"{headline.unit_words} on the test images".strip()
    return (
        f"n: seeds on all training images. {headline.heading}: {whole} after the last epoch, mean ± sample standard deviation, with "
        f"its 95 % interval by Student's t. vs KD: difference to tuned plain KD in {headline.difference_words}, {NOTES}"
    )


def race_words(race: Race) -> str:
    """The rule of a race in words."""
    if not race.chooses:
        return f"of stage {race.stage}, the student alone and plain KD go to {race.seeds_for(NONE)} seeds in all"
    takes = [f"the {race.best} with the best mean" if race.best else ""]
    whose = "plain KD" if race.against == KD else "the student alone"
    takes.append(f"the {race.widest} of the others with the widest interval of the difference to {whose}" if race.widest else "")
    return (
        f"of stage {race.stage}, on the seeds of its refit, {' and '.join(filter(None, takes))} go to {race.seeds} seeds in all, "
        f"the student alone and plain KD to {race.seeds_for(NONE)}"
    )


def race_frame(rows: Sequence[Mapping[str, Any]], waiting: Iterable[str], metric: Metric) -> pd.DataFrame:
    """Rows as text; below them the methods without any run on all training images. metric: the headline of their task."""
    cells = [
        {
            "method": method_words(row["method"]),
            "setting": row["setting"] or "",
            "n": _count(row),
            metric.heading: spread_words(row[f"test_{metric.name}"], row["test_sd"], metric),
            "95 % interval": _bounds(row.get("low"), row.get("high"), metric),
            "vs KD": _difference(row, "vs_kd", metric),
            "added seeds": _difference(row, "added_vs_kd", metric),
            "detectable": "" if pd.isna(row["detectable"]) else metric.spread_text(row["detectable"]),
            "selected": row.get("selected") or "",
            "passes": "/".join(_number(row[f"{name}_passes"], ".0f") or "-" for name in ("student", "backward", "teacher"))
            if not pd.isna(row["student_passes"])
            else "",
            "MACs": _number(row["macs_ratio"], ".2f"),
            "dose": _number(row["dose"], ".2g"),
            "hours": _number(row.get("hours"), ".1f"),
            "published": _published(row["method"], metric),
            "note": row["collapsed"] if isinstance(row["collapsed"], str) else "",
        }
        for row in rows
    ]
    frame = pd.DataFrame([*cells, *({"method": method_words(method), "n": "0"} for method in waiting)], dtype=object).fillna("")
    return frame[[name for name in frame.columns if name in ("method", "n") or frame[name].any()]]


def _published(method: str, metric: Metric) -> str:
    gain = known_gains(metric).get(method)
    return "" if gain is None or method == KD else str(gain)


def _count(row: Mapping[str, Any]) -> str:
    n, planned = row["n"], row["planned"]
    return f"{n:.0f}" if pd.isna(planned) or n == planned else f"{n:.0f} of {planned:.0f}"


def _bounds(low: Any, high: Any, metric: Metric) -> str:
    return "" if low is None or pd.isna(low) else f"[{metric.text(low)}, {metric.text(high)}]"


def _difference(row: Mapping[str, Any], name: str, metric: Metric) -> str:
    values = [row.get(f"{name}{part}") for part in ("", "_low", "_high")]
    difference, low, high = (math.nan if value is None else float(value) for value in values)
    return interval_words(difference, low, high, metric)


def _number(value: Any, form: str) -> str:
    return "" if value is None or pd.isna(value) else f"{value:{form}}"
