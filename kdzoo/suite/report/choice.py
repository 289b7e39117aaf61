"""How firmly the seeds of a sweep choose a setting: a bootstrap over seeds. Free of torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from kdzoo.suite.report.selection import Candidate, choice_order
from kdzoo.tasks.task import Metric

MOST_SEEDS_COUNTED = 7
"""number of seeds up to which every resample is counted (1,716 for seven); beyond it RESAMPLES are drawn"""
RESAMPLES = 4000


def choice_shares(options: Sequence[Candidate]) -> dict[str, float]:
    """How often a bootstrap over seeds chooses each setting, by setting key; of those that may be chosen (`selection.choose`).

    The seeds that all of them have are drawn with replacement, the same for every setting. Up to MOST_SEEDS_COUNTED seeds every
    resample is counted with its probability, so the shares are exact. Nothing where fewer than two seeds are shared.
    """
    able = [option for option in options if option.complete and option.validated]
    if not able:
        return {}
    most = max(len(option.done) for option in able)
    able = [option for option in able if len(option.done) == most]
    able.sort(key=lambda option: choice_order(option)[-2:], reverse=True)  # of equal metrics the first of these is chosen
    seeds = sorted(set.intersection(*({record.run.seed for record in option.done} for option in able)))
    if len(seeds) < 2:
        return {}
    weights, probabilities = _resamples(len(seeds))
    orders = []
    for metric in able[0].task.deciding:
        table = np.array([[_value(option, seed, metric) for seed in seeds] for option in able])
        orders.append(-metric.sign * np.round(table @ weights.T, 10))
    best = np.lexsort([np.broadcast_to(np.arange(len(able))[:, None], orders[0].shape), *reversed(orders)], axis=0)[0]
    totals = np.bincount(best, weights=probabilities, minlength=len(able))
    return {option.records[0].setting_key: float(total) for option, total in zip(able, totals, strict=True)}


def _value(option: Candidate, seed: int, metric: Metric) -> float:
    return next(float(val[metric.name]) for record in option.done if record.run.seed == seed and (val := record.last_epoch_metrics("val")))


def _resamples(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The share of each of n seeds in a resample (resamples, n), and how probable each resample is."""
    if n <= MOST_SEEDS_COUNTED:
        counts = np.array([np.bincount(drawn, minlength=n) for drawn in itertools.combinations_with_replacement(range(n), n)])
        ways = [math.factorial(n) / math.prod(map(math.factorial, map(int, count))) for count in counts]
        return counts / n, np.array(ways) / n**n
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    return counts / n, np.full(RESAMPLES, 1 / RESAMPLES)
