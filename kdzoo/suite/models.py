"""Two trained models on the same test images: what can be said of them, which is nothing about their methods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdzoo.errors import InputError
from kdzoo.store import RunFolder
from kdzoo.suite.stats import LEVEL, mcnemar_p

DRAWS = 20_000


@dataclass(frozen=True)
class TwoModels:
    """Accuracies are shares of the `images`; difference is second minus first, with a bootstrap interval over images."""

    first: str
    second: str
    images: int
    first_top1: float
    second_top1: float
    only_first: int
    only_second: int
    difference: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        return (
            f"These two models, not their methods, on {self.images} test images:\n"
            f"  {self.first}: {self.first_top1:.2%}\n  {self.second}: {self.second_top1:.2%}\n"
            f"  right alone: the first on {self.only_first} images, the second on {self.only_second}\n"
            f"  second - first: {100 * self.difference:+.2f} points [{100 * self.low:+.2f}, {100 * self.high:+.2f}] (paired bootstrap "
            f"over images, 95 %); exact McNemar test p = {self.p:.3g}"
        )


def compare_models(first: RunFolder, second: RunFolder) -> TwoModels:
    """Compare two runs by their kept predictions; raises InputError where they are not there or not of the same images."""
    (right_a, targets_a), (right_b, targets_b) = _right(first), _right(second)
    data = [folder.read_plan()[0].data.fingerprint for folder in (first, second)]
    if data[0] != data[1] or not np.array_equal(targets_a, targets_b):
        raise InputError(f"compare: {first.id} and {second.id} were tested on different images")
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    n = len(targets_a)
    shares = np.array([only_a, only_b, n - only_a - only_b]) / n
    drawn = np.random.default_rng(0).multinomial(n, shares, size=DRAWS)
    low, high = np.quantile((drawn[:, 1] - drawn[:, 0]) / n, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return TwoModels(
        first.id,
        second.id,
        n,
        float(right_a.mean()),
        float(right_b.mean()),
        only_a,
        only_b,
        (only_b - only_a) / n,
        float(low),
        float(high),
        mcnemar_p(right_a, right_b),
    )


def _right(folder: RunFolder) -> tuple[np.ndarray, np.ndarray]:
    """On which test images a run's last epoch was right, and their targets."""
    if not folder.predictions.is_file():
        raise InputError(f"compare: {folder.id} has no predictions kept (train it with --keep predictions)")
    with np.load(folder.predictions) as kept:
        return kept["test"].argmax(1) == kept["test_targets"], kept["test_targets"]
