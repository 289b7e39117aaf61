"""Methods over several pairs of one bench: what a difference to KD is on the mean of the pairs, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from kdzoo.suite.plan.config import KD
from kdzoo.suite.report.blocks import Block, position_of
from kdzoo.suite.report.error_model import LEVEL, holm
from kdzoo.text import number_of

MANY_PAIRS = 11
"""the number of pairs from which they are taken as a sample of all pairs; fewer stand for themselves"""
DRAWS = 10_000
COLUMNS = ("method", "pairs", "collapsed", "vs_kd", "vs_kd_error", "p_vs_kd", "vs_kd_holm", "rank", "rank_low", "rank_high")


def pair_groups(blocks: Sequence[Block]) -> list[tuple[str, tuple[Block, ...]]]:
    """The tables of one data set, recipe and phase that differ in their pairs, two at least, with a title."""
    groups: dict[str, list[Block]] = {}
    for block in blocks:
        head = block.head
        groups.setdefault(f"{head['data']}, {head['recipe']} ({number_of(head['epochs'], 'epoch')}), {head['phase']}", []).append(block)
    with_kd = {title: tuple(block for block in group if gains_of(block)) for title, group in groups.items()}
    return [(f"Over {len(group)} pairs: {title}", group) for title, group in with_kd.items() if len(group) > 1]


def over_pairs(blocks: Sequence[Block]) -> pd.DataFrame:
    """A row a method that stands in every one of the pairs: its mean gain over tuned KD with its standard error, best first.

    A collapsed or failed setting counts with the lowest gain of a healthy one on that pair: how deep it fell says nothing
    of how a method does elsewhere. From MANY_PAIRS pairs on also Wilcoxon's signed-rank test on the pairs' means with
    Holm's mark over all methods, and the mean rank, KD's among them, with a bootstrap interval over pairs.
    """
    gains = [gains_of(block) for block in blocks]
    methods = sorted(set.intersection(*(set(of_pair) for of_pair in gains)))
    table = np.array([[of_pair[method][0] for method in methods] for of_pair in gains])
    frame = pd.DataFrame(
        {
            "method": methods,
            "pairs": len(gains),
            "collapsed": [sum(of_pair[method][1] for of_pair in gains) for method in methods],
            "vs_kd": table.mean(0),
            "vs_kd_error": table.std(0, ddof=1) / math.sqrt(len(gains)),
        }
    )
    if len(gains) < MANY_PAIRS:
        frame = frame[frame["method"] != KD]
    else:
        p = np.array([math.nan if method == KD else wilcoxon_p(table[:, at]) for at, method in enumerate(methods)])
        significant = dict(zip(np.flatnonzero(~np.isnan(p)).tolist(), holm(p[~np.isnan(p)]).tolist(), strict=True))
        marks = pd.Series([significant.get(at) for at in range(len(methods))], dtype=object)
        frame = frame.join(_ranks(table)).assign(p_vs_kd=p, vs_kd_holm=marks)
    frame = frame.reindex(columns=list(COLUMNS)).astype({"vs_kd_holm": object})
    return frame.sort_values("vs_kd", ascending=False, kind="stable", key=lambda gain: gain.round(10))


def gains_of(block: Block) -> dict[str, tuple[float, bool]]:
    """By method: its gain over tuned KD on one pair, and whether it is the lowest healthy one in the place of a collapse.

    Means are over the table's common seeds, so a method without them has no gain. Empty where KD is not there or
    collapsed, or where nothing was chosen, so that a method has several rows.
    """
    kd = block.only(KD)
    methods = [standing.record.method for standing in block.standings]
    if kd is None or position_of(block.comparable, kd) is None or len(set(methods)) < len(methods):
        return {}
    base, sign = block.common_mean(kd), block.metric.sign
    healthy = {s.record.method: sign * (block.common_mean(s) - base) for s in block.comparable}
    lowest = min(healthy.values())
    fallen = {s.record.method: (lowest, True) for s in block.standings if s.collapsed is not None}
    return {method: (gain, False) for method, gain in healthy.items()} | fallen


def ranks_of(blocks: Sequence[Block]) -> pd.DataFrame:
    """The mean rank of every method that stands in all tables, KD among them, with a bootstrap interval over tables."""
    gains = [gains_of(block) for block in blocks]
    methods = sorted(set.intersection(*(set(of_pair) for of_pair in gains)))
    ranks = _ranks(np.array([[of_pair[method][0] for method in methods] for of_pair in gains]))
    return ranks.assign(method=methods)


def wilcoxon_p(gains: np.ndarray) -> float:
    """Wilcoxon's signed-rank test that gains are as often and as far below 0 as above; two-sided, zeros after Pratt."""
    from scipy.stats import wilcoxon  # takes most of a second to import, and few benches have so many pairs

    return float(wilcoxon(gains, zero_method="pratt").pvalue) if np.any(gains != 0) else 1.0


def _ranks(gains: np.ndarray) -> pd.DataFrame:
    """Mean ranks of gains (pairs, methods) over the pairs, 1 the best and ties shared, with a bootstrap interval."""
    from scipy.stats import rankdata

    ranks = rankdata(-gains.round(10), axis=1)
    samples = np.random.default_rng(0).integers(len(gains), size=(DRAWS, len(gains)))
    low, high = np.quantile(ranks[samples].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return pd.DataFrame({"rank": ranks.mean(0), "rank_low": low, "rank_high": high})
