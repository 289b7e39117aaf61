"""A leaderboard for a reader, part by part, as frames of text."""

from __future__ import annotations

import pandas as pd

from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.cells import STUDENT_ALONE, holm_mark, interval_of, method_words, p_value_words
from kdzoo.suite.report.columns import columns_for
from kdzoo.suite.report.over_pairs import over_pairs, pair_groups
from kdzoo.suite.report.reported import reported_frame, reported_of
from kdzoo.suite.report.selection import BELOW
from kdzoo.tasks.task import Metric


def sections(bench: BenchRecords, board: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """What a reader sees of a leaderboard, part by part: every table, below it its collapsed rows, and methods over pairs.

    Columns in which no row has a value are left out.
    """
    blocks = bench.blocks
    parts = []
    for block in blocks:
        rows = block.rows_of(board)
        collapsed = rows["collapsed"].notna()
        if not collapsed.all():
            parts.append((block.title, display_frame(rows[~collapsed], block.metric)))
        if collapsed.any():
            parts.append((f"Collapsed: {block.title}", collapsed_frame(rows[collapsed], block.metric)))
    for title, group in pair_groups(blocks):
        rows_over_pairs = over_pairs(group)
        in_board = rows_over_pairs["method"].isin(board["method"])
        if in_board.any():
            parts.append((title, pairs_frame(rows_over_pairs[in_board], group[0].metric)))
    if (reported := reported_of(bench.folder, bench.task.headline)) is not None:
        parts.append(("Reported: numbers of papers, in no test", reported_frame(reported, bench.task.headline)))
    return [(title, _without_empty_columns(frame)) for title, frame in parts]


def _without_empty_columns(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[[name for name in frame.columns if name == "method" or frame[name].any()]]


def display_frame(board: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The healthy rows as text, as a person reads them; shares in per cent."""
    board = board[board["collapsed"].isna()]
    rows = [row for _, row in board.iterrows()]
    cells = {column.name: [column.cell(row) for row in rows] for column in columns_for(metric)}
    return pd.DataFrame(cells, index=board.index, dtype=object)


def collapsed_frame(board: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The collapsed rows as text: their results, and why no test compares them."""
    board = board[board["collapsed"].notna()]
    rows = [row for _, row in board.iterrows()]
    own = {"method", "setting", "n", f"test {metric.heading}"}
    return pd.DataFrame(
        {
            **{column.name: [column.cell(row) for row in rows] for column in columns_for(metric) if column.name in own},
            "vs KD": [interval_of(row, "vs_kd", metric) for row in rows],
            f"vs {STUDENT_ALONE}": [interval_of(row, "vs_alone", metric) for row in rows],
            "why": [row["collapsed"].replace(BELOW, "below alone on val") for row in rows],
        },
        index=board.index,
        dtype=object,
    )


def pairs_frame(rows: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Methods over pairs as text."""
    many = rows["p_vs_kd"].notna().any()
    cells = {
        "method": [method_words(method) for method in rows["method"]],
        "pairs": [f"{n}" if not c else f"{n} ({c} collapsed)" for n, c in zip(rows["pairs"], rows["collapsed"], strict=True)],
        "vs KD": [
            metric.difference_text(gain) + ("" if pd.isna(error) else f" ± {metric.spread_text(error)}") + holm_mark(holm_)
            for gain, error, holm_ in zip(rows["vs_kd"], rows["vs_kd_error"], rows["vs_kd_holm"], strict=True)
        ],
    }
    if many:
        cells["p KD"] = [p_value_words(p) for p in rows["p_vs_kd"]]
        cells["mean rank"] = [
            "" if pd.isna(rank) else f"{rank:.1f} [{low:.1f}, {high:.1f}]"
            for rank, low, high in zip(rows["rank"], rows["rank_low"], rows["rank_high"], strict=True)
        ]
    return pd.DataFrame(cells, index=rows.index, dtype=object)
