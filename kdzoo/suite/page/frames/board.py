"""Charts of the leaderboard's own rows: differences to KD, accuracy against cost, agreement with the teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from kdzoo.suite.page.frames.series import row_names
from kdzoo.suite.plan.config import KD
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.blocks import HEAD, TEACHER, Block
from kdzoo.suite.report.cells import setting_words
from kdzoo.suite.report.latency import LATENCY
from kdzoo.tasks.task import Metric

OF_TRAINING = {
    "passes": "passes of a training step (forward, backward, teacher)",
    "macs_ratio": "multiplications of training, student alone = 1",
    "time_ratio": "processor time of training, student alone = 1",
    "memory_bytes": "bytes of training",
}
"""costs that tell the rows of one table apart, by the column that has them"""
OF_THE_STUDENT = {
    "student_parameters": "parameters of the student",
    "student_macs": "multiply-accumulates of one image",
    LATENCY: "milliseconds of one image, the shortest of many on this bench's machine",
}
"""costs that tell students apart, over the tables of one data set"""

FOREST = (
    "table", *HEAD, "row", "method", "setting", "n", "vs_kd", "vs_kd_low", "vs_kd_high", "vs_kd_all_low", "vs_kd_all_high", "side",
)  # fmt: skip


def board_rows(bench: BenchRecords, board: pd.DataFrame) -> pd.DataFrame:
    """A leaderboard's rows but the teacher's, with the number of their table, and method and setting in words.

    row: the method, with the setting where the method has several rows in its table.
    """
    parts = [_named(number, block, block.rows_of(board)) for number, block in enumerate(bench.blocks)]
    parts = [part for part in parts if len(part)]
    return pd.concat(parts) if parts else board.assign(table=0, row="", setting="").head(0)


def _named(number: int, block: Block, rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows[rows["method"] != TEACHER]
    settings = [setting_words(row) for _, row in rows.iterrows()]
    return rows.assign(table=number, row=row_names(rows["method"], settings), setting=settings)


def forest_frame(bench: BenchRecords, board: pd.DataFrame) -> pd.DataFrame:
    """The healthy rows that are compared with KD, and on which side of it the interval for all rows at once lies."""
    rows = board_rows(bench, board)
    rows = rows[rows["collapsed"].isna() & rows["vs_kd_all_low"].notna() & (rows["method"] != KD)]
    metric = bench.task.headline
    return rows.assign(side=[_side(row, metric) for _, row in rows.iterrows()])[list(FOREST)]


def _side(row: pd.Series, metric: Metric) -> str:
    low, high = sorted((metric.sign * row["vs_kd_all_low"], metric.sign * row["vs_kd_all_high"]))
    return "better" if low > 0 else "worse" if high < 0 else "not told apart"


def pareto_frame(bench: BenchRecords, board: pd.DataFrame) -> pd.DataFrame:
    """A row a healthy setting and cost, and whether it is on the front: nothing that costs as little or less is better.

    group: counts what is compared, from 0: the rows of a table for what training costs; for the size of the student, those of all
    tables of one data set, recipe and phase. Costs in which all rows are equal, or that nothing measured, are left out.
    """
    rows = board_rows(bench, board)
    rows = rows[rows["collapsed"].isna() & rows[f"test_{bench.task.headline.name}"].notna()]
    rows = rows.assign(passes=rows["student_passes"] + rows["backward_passes"] + rows["teacher_passes"])
    ground = [name for name in HEAD if name != "pair"]
    groups = [(OF_TRAINING, part) for _, part in rows.groupby("table", sort=False)]
    groups += [(OF_THE_STUDENT, part) for _, part in rows.groupby(ground, sort=False, dropna=False)]
    parts = [
        row for number, (costs, part) in enumerate(groups) for cost in costs for row in _with_cost(number, cost, costs[cost], part, bench)
    ]
    return pd.DataFrame(
        parts, columns=["group", "cost", *HEAD, "method", "setting", "n", f"test_{bench.task.headline.name}", "value", "front"]
    )


def _with_cost(number: int, name: str, words: str, rows: pd.DataFrame, bench: BenchRecords) -> Iterator[dict[str, Any]]:
    test, metric = f"test_{bench.task.headline.name}", bench.task.headline
    known = rows[rows[name].notna()] if name in rows else rows.head(0)
    if not len(known) or known[name].nunique() < 2:
        return
    front = on_front(list(known[name]), [metric.sign * value for value in known[test]])
    for (_, row), best in sorted(zip(known.iterrows(), front, strict=True), key=lambda pair: pair[0][1][name]):
        cells = {column: row[column] for column in (*HEAD, "setting", "n", test)}
        yield {"group": number, "cost": words, **cells, "method": row["row"], "value": float(row[name]), "front": best}


def on_front(costs: Sequence[float], values: Sequence[float]) -> list[bool]:
    """Whether each row is on the Pareto front: none is cheaper and as good, or as cheap and better."""
    rows = list(zip(costs, values, strict=True))
    return [not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in rows) for cost, value in rows]


def agreement_frame(bench: BenchRecords, board: pd.DataFrame) -> pd.DataFrame:
    """The healthy rows that have a teacher, with their agreement and their calibration."""
    names = ("agreement", "teacher_kl", "nll", "ece")
    known = [f"test_{name}" for name in names if f"test_{name}" in board]
    rows = board_rows(bench, board)
    columns = ["table", *HEAD, "row", "method", "setting", "n", f"test_{bench.task.headline.name}", *known]
    if "test_agreement" not in known:
        return pd.DataFrame(columns=columns)
    return rows[rows["collapsed"].isna() & rows["test_agreement"].notna()][columns]
