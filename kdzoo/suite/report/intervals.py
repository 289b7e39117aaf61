"""95 % intervals of a mean, of a ratio of means, and of accuracies on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import bdtr, ndtri, stdtrit

from kdzoo.suite.report.error_model import LEVEL, without_zero


def mean_interval(values: Sequence[float] | np.ndarray, resolution: float = 0.0) -> tuple[float, float]:
    """The 95 % t interval of the mean of independent runs; NaN for one run. Equal runs differ by what `resolution` hides."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return math.nan, math.nan
    variance = float(without_zero(np.array([np.var(values, ddof=1)]), resolution)[0])
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * math.sqrt(variance / n)
    return mean - half, mean + half


def beside_single(interval: tuple[float, float], n: int) -> tuple[float, float]:
    """The interval of a mean of n runs minus a single run, from the interval of the mean: a single run varies as each of the n does."""
    middle, half = (interval[0] + interval[1]) / 2, (interval[1] - interval[0]) / 2
    return middle - half * math.sqrt(n + 1), middle + half * math.sqrt(n + 1)


def ratio_interval(parts: Sequence[float], wholes: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a ratio of two means over the same runs; NaN for one run (Fieller 1954, JRSS B 16, 175-185).

    Infinite on both sides where the 95 % interval of the denominator's mean includes 0: the ratio is then anything.
    """
    n = len(parts)
    if n < 2:
        return math.nan, math.nan
    part, whole = float(np.mean(parts)), float(np.mean(wholes))
    covariance = np.cov(np.array([parts, wholes], dtype=float), ddof=1) * float(stdtrit(n - 1, (1 + LEVEL) / 2)) ** 2 / n
    of_part, between, of_whole = covariance[0, 0], covariance[0, 1], covariance[1, 1]
    leading = whole**2 - of_whole
    if leading <= 0:
        return -math.inf, math.inf
    middle = (part * whole - between) / leading
    half = math.sqrt(max(middle**2 - (part**2 - of_part) / leading, 0.0))
    return middle - half, middle + half


def mcnemar_p(first_right: np.ndarray, second_right: np.ndarray) -> float:
    """Exact McNemar test of two models on the same images: about these two models, not about their methods."""
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))


def paired_difference(both: int, only_first: int, only_second: int, neither: int) -> tuple[float, float]:
    """95 % interval of the difference of two models' accuracies on the same images, from how many both, one or none names right.

    Wilson's limits of both accuracies, put together with their correlation phi, which is corrected for continuity where it
    is positive (Newcombe 1998, Statistics in Medicine 17, 2635-2650, method 10). About these two models, not about their
    methods; it need not agree with the exact McNemar test (`mcnemar_p`) on whether 0 is left out.
    """
    n = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    (low1, high1), (low2, high2) = wilson(first, n), wilson(second, n)
    p1, p2 = first / n, second / n
    product = first * (n - first) * second * (n - second)
    excess = both * neither - only_first * only_second
    corrected = max(excess - n / 2, 0.0) if excess > 0 else float(excess)
    phi = corrected / math.sqrt(product) if product else 0.0
    return (
        p1 - p2 - _joint(p1 - low1, high2 - p2, phi),
        p1 - p2 + _joint(high1 - p1, p2 - low2, phi),
    )


def _joint(one: float, other: float, phi: float) -> float:
    """The half-width of a difference whose two sides have these half-widths and this correlation."""
    return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0.0))


def wilson(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = float(ndtri((1 + LEVEL) / 2))
    p = right / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return float(middle - half), float(middle + half)
