"""What methods gain in each class, from the counts of errors that results have."""

from __future__ import annotations

import pandas as pd

from kdzoo.errors import InputError
from kdzoo.suite.page.frames.series import row_names
from kdzoo.suite.plan.config import NONE
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.blocks import HEAD, TEACHER
from kdzoo.suite.report.per_class import per_class_frame

MOST_CLASSES = 40
"""number of classes that are shown; of more, those in which the methods differ most from the student alone"""
COLUMNS = ("table", *HEAD, "row", "method", "setting", "n", "class", "images", "errors", "accuracy", "gain")


def class_frame(bench: BenchRecords) -> pd.DataFrame:
    """A row a method and class: the share named rightly, and how much more that is than the student alone's.

    Empty where no run has counted errors per class, or no student alone has.
    """
    try:
        frame = per_class_frame(bench)
    except InputError:  # no run has counted: runs of earlier versions, or a task without classes
        return pd.DataFrame(columns=list(COLUMNS))
    parts = [_gains(number, block.rows_of(frame)) for number, block in enumerate(bench.blocks)]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts)[list(COLUMNS)] if parts else pd.DataFrame(columns=list(COLUMNS))


def _gains(number: int, rows: pd.DataFrame) -> pd.DataFrame:
    alone = rows[rows["method"] == NONE].set_index("class")["accuracy"]
    if alone.empty or alone.index.has_duplicates:
        return rows.head(0)
    rows = rows[~rows["method"].isin((NONE, TEACHER)) & rows["accuracy"].notna()]
    gains = rows["accuracy"].astype(float) - rows["class"].map(alone).astype(float)
    rows = rows.assign(table=number, row=row_names(rows["method"], rows["setting"]), gain=gains)
    largest = rows.groupby("class", sort=False)["gain"].agg(lambda gain: gain.abs().max()).nlargest(MOST_CLASSES)
    return rows[rows["class"].isin(largest.index)]
