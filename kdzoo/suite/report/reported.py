"""Rows that are reported, not measured: a paper's numbers beside a bench, in `reported.csv` in its folder. Free of torch.

They stand in a table of their own: no interval, no test and no rank is made with them.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kdzoo.errors import InputError
from kdzoo.suite.report.cells import spread_words
from kdzoo.tasks.task import Metric

NAME = "reported.csv"
REPORTED_ROWS = "reported"
"""the name of the index of such rows as text: they are no rows of leaderboard.csv"""
OPTIONAL = ("setting", "pair", "data", "recipe", "n", "sd", "source")
"""the columns that a file may have beside method and the headline of the task"""


def read_reported(file: Path, metric: Metric) -> pd.DataFrame:
    """The rows of a file with columns method and the headline (top1, as a share), and OPTIONAL ones; raises InputError for any other."""
    try:
        frame = pd.read_csv(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: no table ({error})") from error
    if missing := [name for name in ("method", metric.name) if name not in frame]:
        raise InputError(f"{file}: expected the columns method and {metric.name}, missing {', '.join(missing)}")
    values = pd.to_numeric(frame[metric.name], errors="coerce")
    if values.isna().any() or (metric.unit == "share" and ((values < 0) | (values > 1)).any()):
        raise InputError(f"{file}: {metric.name}: expected {'shares from 0 to 1' if metric.unit == 'share' else 'numbers'} in every row")
    return frame.assign(**{metric.name: values})[["method", metric.name, *(name for name in OPTIONAL if name in frame)]]


def reported_of(folder: Path, metric: Metric) -> pd.DataFrame | None:
    """The reported rows beside a bench; None where there are none."""
    return read_reported(folder / NAME, metric) if (folder / NAME).exists() else None


def reported_frame(rows: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Reported rows as text."""
    order = rows.sort_values(metric.name, ascending=metric.sign < 0, kind="stable")
    cells = {"method": order["method"].astype(str)}
    for name in ("setting", "pair", "data", "recipe"):
        if name in order:
            cells[name] = order[name].fillna("").astype(str)
    if "n" in order:
        cells["n"] = order["n"].map(lambda count: "" if pd.isna(count) else f"{count:g}")
    sd = order["sd"] if "sd" in order else pd.Series(float("nan"), order.index)
    texts = [spread_words(value, one, metric) for value, one in zip(order[metric.name], sd, strict=True)]
    cells[f"test {metric.heading}"] = pd.Series(texts, order.index)
    if "source" in order:
        cells["source"] = order["source"].fillna("").astype(str)
    frame = pd.DataFrame(cells, dtype=object)
    frame.index.name = REPORTED_ROWS
    return frame
