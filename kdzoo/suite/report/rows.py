"""Rows of a table in the order of a column, and those that fulfil a condition."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import pandas as pd

from kdzoo.errors import InputError, unknown
from kdzoo.tasks.task import Task

DIFFERENCES = re.compile(r"vs_| - ")
"""columns of differences in the headline, of which the highest is the best where that of the headline is"""


def sorted_by(frame: pd.DataFrame, column: str, task: Task) -> pd.DataFrame:
    """The frame in the order of a column, best first where it has a metric's values; raises InputError with the nearest column.

    task: that of the rows.
    """
    if column not in frame:
        raise InputError(unknown("sort", column, map(str, frame.columns)))
    names = [metric.name for metric in task.metrics if metric.better == "higher"]
    values = re.search("|".join([*names, "accuracy", "gap_closed"]), column)
    higher_is_better = values or (task.headline.better == "higher" and DIFFERENCES.search(column))
    ascending = not higher_is_better or bool(re.search(r"(^p_| p| test|_test| sd|_sd)$|^p_", column))
    return frame.sort_values(column, ascending=ascending, kind="stable", na_position="last")


OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, ">": operator.gt, "<": operator.lt, "=": operator.eq,
}  # fmt: skip


def filtered(frame: pd.DataFrame, condition: str) -> pd.DataFrame:
    """The rows for which `column=value`, `column>0.9` (or >=, <, <=, !=) holds; raises InputError for any other text.

    A cell without a value fulfils no condition but !=.
    """
    match = re.fullmatch(r"\s*(.+?)\s*(>=|<=|!=|>|<|=)\s*(.+?)\s*", condition)
    if match is None:
        raise InputError(f"filter: expected COLUMN=VALUE or COLUMN>NUMBER, or one of != < <= >=, got {condition!r}")
    column, sign, value = match.groups()
    if column not in frame:
        raise InputError(unknown("filter", column, map(str, frame.columns)))
    cells = frame[column]
    if pd.api.types.is_numeric_dtype(cells) and not pd.api.types.is_bool_dtype(cells):
        try:
            return cast(pd.DataFrame, frame[OPERATORS[sign](cells, float(value))])
        except ValueError:
            raise InputError(f"filter: {column} holds numbers, got {value!r}") from None
    return cast(pd.DataFrame, frame[OPERATORS[sign](cells.astype(str), value) & (cells.notna() | (sign == "!="))])
