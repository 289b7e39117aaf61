"""A comparison of benches for a reader."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from kdzoo.suite.report.cells import interval_words, method_words, p_value_words, spread_words
from kdzoo.suite.report.render import cell_text
from kdzoo.tasks.task import Metric


def comparison_sections(frame: pd.DataFrame, names: Sequence[str], metric: Metric) -> list[tuple[str, pd.DataFrame]]:
    """A comparison for a reader: a table for all rows of one pair, data set and phase, with their title."""
    heads = [name for name in ("pair", "data", "recipe", "epochs", "phase") if name in frame and frame[name].notna().any()]
    if not heads:
        return [("", comparison_frame(frame, names, metric))]
    groups = [rows for _, rows in frame.groupby(heads, dropna=False, sort=False)]
    titles = [", ".join(filter(None, (_head_words(head, rows[head].iloc[0]) for head in heads))) for rows in groups]
    return [(title, comparison_frame(rows, names, metric)) for title, rows in zip(titles, groups, strict=True)]


def _head_words(head: str, value: object) -> str:
    """One part of a table's title; empty where nothing is known of it."""
    words = cell_text(value, False)
    return f"{words} epoch{'' if words == '1' else 's'}" if words and head == "epochs" else words


def comparison_frame(frame: pd.DataFrame, names: Sequence[str], metric: Metric) -> pd.DataFrame:
    """Rows of a comparison as text: every side's setting, mean ± sd and n, and differences to the first side with intervals.

    Settings are one column where all sides that have a row have the same there.
    """
    rows = [row for _, row in frame.iterrows()]
    cells = {"method": [method_words(str(row["method"])) for row in rows]}
    settings = [[cell_text(row[f"{name} setting"], False) for name in names if not pd.isna(row[f"{name} {metric.name}"])] for row in rows]
    if all(len(set(of_row)) <= 1 for of_row in settings):
        cells["setting"] = [of_row[0] if of_row else "" for of_row in settings]
    else:
        cells |= {f"{name} setting": [cell_text(row[f"{name} setting"], False) for row in rows] for name in names}
    for name in names:
        cells[name] = [spread_words(row[f"{name} {metric.name}"], row[f"{name} sd"], metric) for row in rows]
    for name in names:
        cells[f"{name} n"] = [cell_text(row[f"{name} n"], False) for row in rows]
    for name in names[1:]:
        difference = f"{name} - {names[0]}"
        cells[difference] = [interval_words(row[difference], row[f"{difference} low"], row[f"{difference} high"], metric) for row in rows]
        cells[f"{difference} p"] = [p_value_words(row[f"{difference} p"]) for row in rows]
        cells[f"{difference} test"] = [cell_text(row[f"{difference} test"], False) for row in rows]
    return pd.DataFrame(cells, index=frame.index, dtype=object)
