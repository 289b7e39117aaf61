"""One score of a method over all tables of some benches: its mean gain over tuned KD, and its rank, with intervals. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kdzoo.errors import InputError
from kdzoo.suite.plan.config import KD
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.blocks import Block
from kdzoo.suite.report.cells import holm_mark, interval_words, method_words, p_value_words
from kdzoo.suite.report.over_pairs import MANY_PAIRS, gains_of, over_pairs, ranks_of
from kdzoo.suite.report.searches import REFIT, t_interval
from kdzoo.tasks.task import Metric


def scored_blocks(benches: Sequence[BenchRecords]) -> list[Block]:
    """The tables that a score is made of: of every pair, data set and recipe the refit where there is one, else the sweep.

    Raises InputError where these are fewer than two, or of tasks with different metrics.
    """
    different = {bench.folder.resolve(): bench for bench in benches}
    blocks = [block for bench in different.values() for block in final_blocks(bench)]
    if len(blocks) < 2:
        raise InputError(f"score: expected two tables or more with a healthy plain KD, found {len(blocks)}")
    if len({block.metric.name for block in blocks}) > 1:
        raise InputError("score: these benches have different metrics")
    return blocks


def final_blocks(bench: BenchRecords) -> list[Block]:
    """Of every pair, data set and recipe of a bench the refit where there is one, else the sweep, if plain KD is healthy there."""
    chosen: dict[tuple[str, str, str], Block] = {}
    for block in bench.blocks:
        key = (block.table_key.pair, block.table_key.data, block.table_key.recipe)
        if gains_of(block) and (key not in chosen or block.table_key.phase == REFIT):
            chosen[key] = block
    return list(chosen.values())


def score_frame(blocks: Sequence[Block]) -> pd.DataFrame:
    """A row a method that stands in every table, best first.

    vs_kd: mean gain over tuned KD; vs_kd_error its standard error over tables, vs_kd_low and vs_kd_high Student's interval.
    rank: mean rank, KD's among them, with a bootstrap interval over tables. From MANY_PAIRS tables on also Wilcoxon's test
    with Holm's mark.
    """
    frame = over_pairs(blocks).drop(columns=["rank", "rank_low", "rank_high"]).merge(ranks_of(blocks), on="method")
    gains = [gains_of(block) for block in blocks]
    bounds = [t_interval(np.array([of_block[method][0] for of_block in gains])) for method in frame["method"]]
    frame = frame.rename(columns={"pairs": "tables"})
    low, high = (pd.Series([bound[at] for bound in bounds], frame.index) for at in (0, 1))
    return frame.assign(vs_kd_low=low, vs_kd_high=high)


def shown_score(frame: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The same as text for a reader."""
    rows = [row for _, row in frame[frame["method"] != KD].iterrows()]
    cells = {
        "method": [method_words(row["method"]) for row in rows],
        "tables": [f"{row['tables']}{f' ({row.collapsed} collapsed)' if row['collapsed'] else ''}" for row in rows],
        "vs KD": [interval_words(row["vs_kd"], row["vs_kd_low"], row["vs_kd_high"], metric) + holm_mark(row["vs_kd_holm"]) for row in rows],
        "p KD": [p_value_words(row["p_vs_kd"]) for row in rows],
        "mean rank": [f"{row['rank']:.1f} [{row['rank_low']:.1f}, {row['rank_high']:.1f}]" for row in rows],
    }
    frame_shown = pd.DataFrame(cells, dtype=object)
    return frame_shown if frame["p_vs_kd"].notna().any() else frame_shown.drop(columns="p KD")


def note_on_score(tables: int) -> str:
    """What a score speaks of."""
    about = "about these tables only" if tables < MANY_PAIRS else "p: Wilcoxon's signed-rank test, *: after Holm's correction"
    return (
        f"Mean gain over tuned KD over {tables} tables with Student's 95 % interval; mean rank with a 95 % bootstrap interval over tables; "
        f"{about}. A collapsed or failed setting counts with the lowest gain of a healthy one in that table."
    )
