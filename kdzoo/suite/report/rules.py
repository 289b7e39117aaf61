"""Rules that are fixed before the runs: which row is collapsed, on which seeds rows are ranked, when a teacher's lead is clear."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.special import ndtri, stdtrit

from kdzoo.suite.report.error_model import LEVEL, sample_sd

COLLAPSE_POINTS, COLLAPSE_SDS = 3.0, 5.0


def is_collapsed(val_top1: np.ndarray, alone: np.ndarray, images: int) -> np.ndarray:
    """Whether validation top-1 (..., seeds) lies so far below the student alone's that its runs went wrong.

    By more than COLLAPSE_POINTS and more than COLLAPSE_SDS standard deviations of the student alone, which are taken to
    be at least sqrt(p (1 - p) / N), what N images leave open of an accuracy p. A row exactly at the bound is not collapsed.
    """
    base = alone.mean(-1)
    own = alone.std(-1, ddof=1) if alone.shape[-1] > 1 else np.zeros_like(base)
    sd = np.maximum(own, np.sqrt(base * (1 - base) / images))
    return np.asarray(np.round(base - val_top1.mean(-1) - np.maximum(COLLAPSE_POINTS / 100, COLLAPSE_SDS * sd), 10) > 0)


def common_seeds(samples: Sequence[Iterable[int]]) -> frozenset[int]:
    """The seeds on which rows may be ranked against each other: of sets of two seeds or more, the one that most rows have.

    Where all rows share two seeds or more, those. Else the rows' own sets are the candidates: most rows, then most seeds.
    Where no two rows share two seeds, what all rows share, which may be nothing. A mean over more or other seeds is
    another measurement: one seed may be a lucky one for every method alike.
    """
    sets = [frozenset(sample) for sample in samples]
    if not sets:
        return frozenset()
    shared = frozenset.intersection(*sets)
    rows = {seeds: sum(seeds <= other for other in sets) for seeds in {shared, *sets} if len(seeds) > 1}
    able = {seeds: count for seeds, count in rows.items() if count > 1}
    return max(able, key=lambda seeds: (able[seeds], len(seeds), sorted(seeds)), default=shared)


def lead_is_clear(teacher: float, alone: Sequence[float] | np.ndarray, images: int | None) -> bool:
    """Whether a teacher's value, such as test top-1, lies above the student alone's (seeds) by more than that lead's 95 % interval.

    The teacher is one training: its distance from a mean of n has an error of sd sqrt(1 + 1/n), with n - 1 degrees of
    freedom, and no lead is clearer than N test images leave two accuracies open (None: the values are no accuracies). Never
    clear with one seed.
    """
    n, base = len(alone), float(np.mean(alone))
    if n < 2:
        return False
    between_runs = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * sample_sd(alone) * np.sqrt(1 + 1 / n)
    if images is None:
        return bool(teacher - base > between_runs)
    between_images = float(ndtri((1 + LEVEL) / 2)) * np.sqrt((base * (1 - base) + teacher * (1 - teacher)) / images)
    return bool(teacher - base > max(between_runs, between_images))
