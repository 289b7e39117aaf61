"""Cells of tables as text for a reader."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pandas as pd

from kdzoo.suite.plan.config import NONE
from kdzoo.suite.report.settings import Setting
from kdzoo.tasks.task import Metric
from kdzoo.text import format_number

STUDENT_ALONE = "student alone"


def method_words(method: str) -> str:
    """A method as tables for a reader name it; the CSV has its own name, which `--methods` and `--filter` take."""
    return STUDENT_ALONE if method == NONE else method


def number_text(value: float, form: str, unit: str = "") -> str:
    return "" if pd.isna(value) else f"{format_number(value, form)}{unit}"


def passes_text(row: pd.Series) -> str:
    """`1/1/1`: forward and backward of the student, forward of the teacher, as far as they are recorded."""
    passes = [row[name] for name in ("student_passes", "backward_passes", "teacher_passes")]
    return "" if any(pd.isna(value) for value in passes) else "/".join(f"{value:.0f}" for value in passes)


def text_of(row: pd.Series, name: str) -> str:
    """A cell of text that a table may lack; empty where it does."""
    value = row.get(name)
    return value if isinstance(value, str) else ""


def replicas_text(row: pd.Series) -> str:
    """How often the runs of a row were trained besides; empty for never."""
    count = row.get("replicas")
    return "" if count is None or pd.isna(count) or not count else f"{count:.0f}"


def bytes_text(value: float | None) -> str:
    """Three digits with a unit of powers of 1000; empty where there is no value."""
    if pd.isna(value):
        return ""
    units = ("B", "kB", "MB", "GB", "TB")
    power = min(sum(value >= 999.5 * 1000**above for above in range(len(units))), len(units) - 1)
    return f"{value / 1000**power:.3g} {units[power]}"


def on_common_seeds(row: pd.Series, metric: Metric) -> str:
    """The mean that a row is ranked by; empty where the row has just the seeds of the ranks."""
    mean = row[f"rank_{metric.name}"]
    return "" if pd.isna(mean) or len(str(row["rank_seeds"]).split()) == row["n"] else metric.text(mean)


def p_value_words(p: float) -> str:
    """Three decimals, or as many more as it takes to see on which side of 0.05 it lies."""
    if not pd.isna(p) and p < 0.001:
        return "<0.001"
    return next((text for digits in (3, 4, 6) if (text := number_text(p, f".{digits}f")).rstrip("0") != "0.05"), number_text(p, ".10g"))


def setting_words(row: pd.Series) -> str:
    """The setting of a row of a leaderboard.csv or runs.csv, in the words of `records.Setting`; empty where there is none."""
    numbers: dict[str, Any] = {part.name: row.get(part.name) for part in fields(Setting) if part.name != "others"}
    known = {name: None if pd.isna(value) else value for name, value in numbers.items()}
    others = row.get("others")
    return str(Setting(**known, others=json.loads(others) if isinstance(others, str) else {}))


def count_text(row: pd.Series) -> str:
    return f"{row['n']:.0f}" if pd.isna(row["planned"]) or row["n"] == row["planned"] else f"{row['n']:.0f} of {row['planned']:.0f}"


def spread_words(mean: float, sd: float, metric: Metric) -> str:
    """A mean with its standard deviation in a metric's unit: `96.94 ± 0.48` of shares, in per cent."""
    return "" if pd.isna(mean) else metric.text(mean) + ("" if pd.isna(sd) else f" ± {metric.spread_text(sd)}")


def interval_of(row: pd.Series, name: str, metric: Metric) -> str:
    return interval_words(row[name], row[f"{name}_low"], row[f"{name}_high"], metric)


def interval_words(difference: float, low: float, high: float, metric: Metric) -> str:
    """A difference with its interval in a metric's unit: `+0.37 [-0.91, +1.65]` in points; no brackets where there is no interval."""
    return "" if pd.isna(difference) else f"{metric.difference_text(difference)} {_range(low, high, metric)}".rstrip()


def bounds_of(row: pd.Series, name: str, metric: Metric) -> str:
    return _range(row[f"{name}_low"], row[f"{name}_high"], metric)


def _range(low: float, high: float, metric: Metric) -> str:
    return "" if pd.isna(low) else f"[{metric.bound_text(low)}, {metric.bound_text(high)}]"


def holm_mark(significant: object) -> str:
    return " *" if significant is True else ""
