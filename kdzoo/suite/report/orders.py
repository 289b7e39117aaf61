"""Whether the order of methods carries over from one table to another, and in how many tables each is told apart from tuned KD.

Free of torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist, fmean

import numpy as np
import pandas as pd

from kdzoo.suite.plan.config import KD, NONE
from kdzoo.suite.report.blocks import Block
from kdzoo.suite.report.cells import p_value_words
from kdzoo.suite.report.error_model import LEVEL
from kdzoo.suite.report.over_pairs import DRAWS, gains_of
from kdzoo.suite.report.rivals import rivals_of
from kdzoo.text import format_number, number_of

FEWEST = 4
"""methods that two tables must share for a correlation to have an interval"""
BETTER, WORSE, OPEN, COLLAPSED = "better", "worse", "not told apart", "collapsed"


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation of two rankings of `methods` methods, with its 95 % interval and the p-value of none at all."""

    methods: int
    value: float
    low: float
    high: float
    p: float

    @property
    def words(self) -> str:
        """`+0.47 [-0.12, +0.81]`; empty where too few methods stand in both."""
        return _correlation_words(self.value, self.low, self.high)


@dataclass(frozen=True)
class Order:
    """How far two tables, by their names, have their methods in the same order."""

    one: str
    other: str
    correlation: RankCorrelation


@dataclass(frozen=True)
class Outcome:
    """A method's gain over tuned KD in one table, with the interval for all rows of the table at once, and what that shows."""

    method: str
    table: str
    gain: float
    low: float
    high: float
    word: str


def rank_correlation(one: Mapping[str, float], other: Mapping[str, float]) -> RankCorrelation:
    """Of two tables' gains by method, over the methods that both have; NaN where these are too few.

    The interval is Fisher's with the variance (1 + r^2 / 2) / (n - 3) (Bonett and Wright 2000, Psychometrika 65). It takes methods
    for a sample and says nothing of the seeds: noise in either table draws the correlation towards 0.
    """
    from scipy.stats import spearmanr  # takes most of a second to import

    both = sorted(one.keys() & other.keys())
    if len(both) < FEWEST:
        return RankCorrelation(len(both), math.nan, math.nan, math.nan, math.nan)
    found = spearmanr([one[name] for name in both], [other[name] for name in both])
    value = float(found.statistic)
    if not 1 - abs(value) > 1e-9:  # the interval of a perfect correlation, or of a table without differences, is not defined
        return RankCorrelation(len(both), value, math.nan, math.nan, float(found.pvalue))
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * math.sqrt((1 + value**2 / 2) / (len(both) - 3))
    low, high = (math.tanh(math.atanh(value) + sign * half) for sign in (-1, 1))
    return RankCorrelation(len(both), value, low, high, float(found.pvalue))


def orders_of(blocks: Sequence[Block], names: Sequence[str]) -> list[Order]:
    """For each two tables how far the order of their methods by gain over tuned KD is the same. names: of the tables."""
    gains = dict(zip(names, map(method_gains, blocks), strict=True))
    return [Order(one, other, rank_correlation(gains[one], gains[other])) for one, other in combinations(gains, 2)]


def mean_correlation(blocks: Sequence[Block]) -> tuple[float, float, float]:
    """The mean of all correlations of two tables over the methods that stand in every one, with a bootstrap interval over methods."""
    gains = [method_gains(block) for block in blocks]
    methods = sorted(set.intersection(*map(set, gains))) if gains else []
    if len(methods) < FEWEST or len(blocks) < 2:
        return math.nan, math.nan, math.nan
    table = np.array([[of_table[method] for method in methods] for of_table in gains])
    draws = np.random.default_rng(0).integers(len(methods), size=(DRAWS, len(methods)))
    drawn = _mean_spearman(table[:, draws].transpose(1, 0, 2))
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(_mean_spearman(table[None])[0]), float(low), float(high)


def method_gains(block: Block) -> dict[str, float]:
    """The gain of every method over tuned KD, the two controls apart; a collapsed one has the lowest of a healthy one."""
    return {method: gain for method, (gain, _) in gains_of(block).items() if method not in (KD, NONE)}


def outcomes_of(blocks: Sequence[Block], names: Sequence[str]) -> list[Outcome]:
    """What each table shows of each of its methods against tuned KD, the student alone left out."""
    found = []
    for block, name in zip(blocks, names, strict=True):
        for rival in rivals_of(block, KD):
            word = BETTER if rival.low > 0 else WORSE if rival.high < 0 else OPEN
            found.append(Outcome(rival.method, name, rival.difference, rival.low, rival.high, word))
        fallen = [s.record.method for s in block.standings if s.collapsed is not None and s.record.method not in (KD, NONE)]
        found += [Outcome(method, name, math.nan, math.nan, math.nan, COLLAPSED) for method in fallen]
    return found


def shown_orders(orders: Sequence[Order]) -> pd.DataFrame:
    """The correlations as text for a reader."""
    rows = [
        {
            "table": order.one,
            "and": order.other,
            "methods": f"{order.correlation.methods}",
            "rank correlation": order.correlation.words,
            "p": p_value_words(order.correlation.p),
        }
        for order in orders
    ]
    return pd.DataFrame(rows, dtype=object)


def shown_outcomes(outcomes: Sequence[Outcome], blocks: Sequence[Block], names: Sequence[str]) -> pd.DataFrame:
    """A row a method, best mean gain first: its gain in each table, `+` where it is better than tuned KD and `-` where it is worse."""
    marks = {BETTER: " +", WORSE: " -", OPEN: ""}
    metrics = {name: block.metric for name, block in zip(names, blocks, strict=True)}
    rows = []
    for method, of_method in _by_method(outcomes).items():
        cells = {
            one.table: COLLAPSED if one.word == COLLAPSED else metrics[one.table].difference_text(one.gain) + marks[one.word]
            for one in of_method
        }
        counts = {word: f"{sum(one.word == word for one in of_method)} of {len(of_method)}" for word in (BETTER, WORSE)}
        rows.append({"method": method, **counts, **{name: cells.get(name, "") for name in names}})
    return pd.DataFrame(rows, columns=["method", BETTER, WORSE, *names], dtype=object)


def orders_words(blocks: Sequence[Block], outcomes: Sequence[Outcome]) -> str:
    """What tables come to: whether the order carries over, and which methods are better than tuned KD in how many of them."""
    mean, low, high = mean_correlation(blocks)
    order = (
        "No correlation: too few methods stand in every table."
        if math.isnan(mean)
        else f"The order of methods in one table has a mean rank correlation of {_correlation_words(mean, low, high)} with that in another."
    )
    counts = Counter(one.method for one in outcomes if one.word == BETTER)
    if not counts:
        return f"{order} No method is shown to be better than tuned KD in any of {number_of(len(blocks), 'table')}."
    methods = ", ".join(f"'{method}' in {count}" for method, count in counts.most_common())
    return f"{order} Shown to be better than tuned KD, of {number_of(len(blocks), 'table')}: {methods}."


def _by_method(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """The outcomes of each method, the one with the highest mean gain first, those that collapsed everywhere last."""
    found: dict[str, list[Outcome]] = {}
    for one in outcomes:
        found.setdefault(one.method, []).append(one)
    means = {method: [one.gain for one in of_method if not math.isnan(one.gain)] for method, of_method in found.items()}
    return dict(sorted(found.items(), key=lambda item: -fmean(means[item[0]]) if means[item[0]] else math.inf))


ORDERS_READ_AS = (
    "rank correlation: Spearman's, of the gains over tuned KD of the methods that stand in both tables, the student alone left out, with "
    "its 95 % interval over methods. Noise of few seeds draws it towards 0. + and -: better and worse than tuned KD, by the 95 % interval "
    "for all rows of a table at once."
)


def _correlation_words(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return ""
    return format_number(value, "+.2f") + ("" if math.isnan(low) else f" [{format_number(low, '+.2f')}, {format_number(high, '+.2f')}]")


def _mean_spearman(gains: np.ndarray) -> np.ndarray:
    """The mean over pairs of tables of Spearman's correlation, for each of several sets of gains (sets, tables, methods)."""
    from scipy.stats import rankdata

    ranks = rankdata(gains, axis=2)
    centred = ranks - ranks.mean(2, keepdims=True)
    with np.errstate(invalid="ignore"):
        unit = centred / np.sqrt((centred**2).sum(2, keepdims=True))
    products = unit @ unit.transpose(0, 2, 1)
    first, second = np.triu_indices(gains.shape[1], 1)
    return np.asarray(products[:, first, second].mean(1))
