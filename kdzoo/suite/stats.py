"""Statistics of few seeds, as pure functions; intervals are 95 %."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdzoo.suite.distributions import normal_cdf, normal_nodes, spread_nodes, t_quantile, t_tail

LEVEL = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Difference:
    """A mean difference with its interval; `kind` is `paired` (by seed) or `welch` (unequal seeds)."""

    mean: float
    low: float
    high: float
    kind: str


def sample_sd(values: Sequence[float]) -> float:
    """The sample standard deviation (ddof 1); NaN for one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Student's interval of a mean; NaN for one value."""
    mean, n = float(np.mean(values)), len(values)
    half = t_quantile((1 + LEVEL) / 2, n - 1) * sample_sd(values) / math.sqrt(n) if n > 1 else math.nan
    return mean - half, mean + half


def difference(treated: Mapping[int, float], control: Mapping[int, float]) -> Difference:
    """The mean of `treated` minus `control`, values by seed.

    Paired by seed where both have the same seeds: one seed gives both the same initialisation and batches. Else
    Welch's interval for independent samples. Bounds are NaN where a single value leaves no variance.
    """
    if treated.keys() == control.keys():
        gaps = [treated[seed] - control[seed] for seed in treated]
        return Difference(float(np.mean(gaps)), *mean_interval(gaps), "paired")
    a, b = list(treated.values()), list(control.values())
    half = math.nan
    if len(a) > 1 and len(b) > 1:
        error, freedom = welch(sample_sd(a), len(a), sample_sd(b), len(b))
        half = t_quantile((1 + LEVEL) / 2, freedom) * error if error else 0.0
    mean = float(np.mean(a) - np.mean(b))
    return Difference(mean, mean - half, mean + half, "welch")


def welch(sd_a: float, n_a: int, sd_b: float, n_b: int) -> tuple[float, float]:
    """Standard error and Welch-Satterthwaite degrees of freedom of a difference of two means."""
    a, b = sd_a**2 / n_a, sd_b**2 / n_b
    if a + b == 0:
        return 0.0, float(n_a + n_b - 2)
    return math.sqrt(a + b), (a + b) ** 2 / (a**2 / (n_a - 1) + b**2 / (n_b - 1))


def welch_p(mean: float, error: float, freedom: float) -> float:
    """The two-sided p-value of a mean difference."""
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return 2 * t_tail(abs(mean / error), freedom)


def dunnett_p(samples: Sequence[Sequence[float]], control: Sequence[float]) -> list[float]:
    """Two-sided p-values of many methods against one control, adjusted for their number (Dunnett 1955, pooled variance).

    The integral over the control's mean and over the pooled deviation is taken here, to the ten decimals that are given:
    scipy.stats.dunnett samples it, and takes most of a second to import. NaN without spread.
    """
    groups = [np.asarray(values, dtype=float) for values in (*samples, control)]
    if not samples or min(map(len, groups)) < 2:
        return [math.nan] * len(samples)
    freedom = sum(len(g) - 1 for g in groups)
    variance = sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / freedom
    if variance == 0:
        return [math.nan] * len(samples)
    *treated, base = groups
    n = np.array([len(g) for g in treated])
    gaps = np.array([abs(g.mean() - base.mean()) for g in treated])
    shared = np.sqrt(n / (n + len(base)))
    return [round(1 - _all_within(t, shared, freedom), 10) for t in gaps / np.sqrt(variance * (1 / n + 1 / len(base)))]


def _all_within(bound: float, shared: np.ndarray, freedom: int) -> float:
    """P(|T_j| <= bound for all j) where the T_j share a control: corr(T_i, T_j) = shared_i shared_j."""
    z, z_weight = normal_nodes()
    spread, weight = spread_nodes(freedom)
    alike, times = np.unique(shared, return_counts=True)  # methods of as many seeds have one integrand
    own = np.sqrt(1 - alike**2)
    middle = alike * z[:, None, None]
    reach = bound * spread[None, :, None]
    inside = normal_cdf((middle + reach) / own) - normal_cdf((middle - reach) / own)
    return min(1.0, float(z_weight @ np.prod(inside**times, axis=-1) @ weight))


def detectable(sd: float, n: int) -> float:
    """The smallest difference of two means that n runs each would find in 8 of 10 benches (two-sided t-test at 5 %).

    (t_{0.975} + t_{0.8}) sd sqrt(2 / n) with 2n - 2 degrees of freedom: the usual approximation to the noncentral t,
    for independent runs; where the seeds of two methods rise and fall together, a paired test sees more. NaN for n = 1.
    """
    if n < 2 or math.isnan(sd):
        return math.nan
    freedom = 2 * n - 2
    return (t_quantile((1 + LEVEL) / 2, freedom) + t_quantile(POWER, freedom)) * sd * math.sqrt(2 / n)


def pooled_sd(samples: Sequence[Sequence[float]]) -> float:
    """The root of the mean variance, weighted by degrees of freedom; NaN where no sample has two values."""
    freedom = sum(len(sample) - 1 for sample in samples)
    if freedom == 0:
        return math.nan
    return math.sqrt(sum((len(s) - 1) * sample_sd(s) ** 2 for s in samples if len(s) > 1) / freedom)


def mcnemar_p(first_right: np.ndarray, second_right: np.ndarray) -> float:
    """Exact McNemar test of two models on the same images: about these two models, not about their methods."""
    from scipy.stats import binomtest

    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    return 1.0 if only_first + only_second == 0 else float(binomtest(only_first, only_first + only_second).pvalue)


def wilson(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = 1.959963984540054
    p = right / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return middle - half, middle + half
