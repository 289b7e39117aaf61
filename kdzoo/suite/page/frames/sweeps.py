"""Every sweep of a bench in one frame."""

from __future__ import annotations

import pandas as pd

from kdzoo.suite.plan.config import NONE
from kdzoo.suite.report.axes import value_words
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.blocks import HEAD
from kdzoo.suite.report.swept import COLUMNS, swept_frame


def sweep_frame(bench: BenchRecords) -> pd.DataFrame:
    """The settings that are done of all methods that were swept (`swept.swept_frame`), and where they stand as text.

    sweep: counts the grids of the bench, from 0: the settings of one method and table that two axes at the most tell apart. One
    with a single setting is left out.
    """
    methods = {record.method for block in bench.blocks if block.table_key.phase == "sweep" for record in block.records} - {NONE}
    frames = [swept_frame(bench, method) for method in sorted(methods)]
    rows = pd.concat(frames) if frames else pd.DataFrame(columns=list(COLUMNS))
    rows = rows[rows["mean"].notna() & rows["row"].notna()]
    grids = [group for _, group in rows.groupby([*HEAD, "method", "others"], sort=False, dropna=False) if len(group) > 1]
    if not grids:
        return rows.assign(sweep=0).head(0)
    frame = pd.concat([grid.assign(sweep=number) for number, grid in enumerate(grids)])
    return frame.assign(row=frame["row"].map(value_words), column=frame["column"].map(value_words))


def has_two_axes(frame: pd.DataFrame) -> bool:
    """Whether a sweep has a column axis too."""
    return bool(frame["column_axis"].notna().all())


def part_words(frame: pd.DataFrame) -> str:
    """On which images a sweep was measured: `validation`, or `test` where nothing was held out."""
    return "test" if frame["metric"].iloc[0].startswith("test_") else "validation"
