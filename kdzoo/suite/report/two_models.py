"""Two trained models on the same test images: what can be said of them, which is nothing about their methods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdzoo.errors import InputError
from kdzoo.runs.predictions import Predictions, read_predictions
from kdzoo.runs.seals import DamagedFile
from kdzoo.runs.store import RunFolder
from kdzoo.suite.report.error_model import LEVEL
from kdzoo.suite.report.intervals import mcnemar_p
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.text import format_number

DRAWS = 20_000


@dataclass(frozen=True)
class TwoModels:
    """Shares of the `images`, which both were tested on, that each names rightly; difference is second minus first, with a bootstrap
    interval over images. only_first_saw, only_second_saw: the images that one of them alone was tested on, left out."""

    first: str
    second: str
    images: int
    first_right: float
    second_right: float
    only_first: int
    only_second: int
    difference: float
    low: float
    high: float
    p: float
    only_first_saw: int = 0
    only_second_saw: int = 0

    def __str__(self) -> str:
        difference, low, high = (format_number(100 * value, "+.2f") for value in (self.difference, self.low, self.high))
        return self._left_out() + (
            f"These two models, not their methods, on {self.images} test images:\n"
            f"  {self.first}: {self.first_right:.2%}\n  {self.second}: {self.second_right:.2%}\n"
            f"  right alone: the first on {self.only_first} images, the second on {self.only_second}\n"
            f"  second - first: {difference} points [{low}, {high}] (paired bootstrap "
            f"over images, 95 %); exact McNemar test p = {self.p:.3g}"
        )

    def _left_out(self) -> str:
        if not self.only_first_saw and not self.only_second_saw:
            return ""
        return (
            f"Left out: {self.only_first_saw} images that only {self.first} was tested on, {self.only_second_saw} that only "
            f"{self.second} was.\n"
        )


def compare_models(first: RunFolder, second: RunFolder) -> TwoModels:
    """Compare two runs by their kept predictions, image by image.

    Raises InputError, with what is wrong with either, where predictions are not there or damaged, or where no image is the
    same under the same label.
    """
    a, b = _read((first, second))
    place_a, place_b = _paired(a, b)
    if not len(place_a) or not np.array_equal(a.targets[place_a], b.targets[place_b]):
        what = "the same images under other labels" if len(place_a) else "different images"
        raise InputError(f"compare: {first.id} and {second.id} were tested on {what}")
    right_a, right_b = (
        predictions.log_probs[place].argmax(1) == predictions.targets[place] for predictions, place in ((a, place_a), (b, place_b))
    )
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    n = len(right_a)
    shares = np.array([only_a, only_b, n - only_a - only_b]) / n
    samples = np.random.default_rng(0).multinomial(n, shares, size=DRAWS)
    low, high = np.quantile((samples[:, 1] - samples[:, 0]) / n, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
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
        len(a.keys) - n,
        len(b.keys) - n,
    )


def _read(folders: Iterable[RunFolder]) -> list[Predictions]:
    """The predictions of runs on their test images; raises InputError with the faults of all of them."""
    predictions, problems = [], []
    for folder in folders:
        try:
            run = folder.read_plan()[0]
            if run.data.task != CLASSIFICATION.name:
                problems.append(f"compare: {folder.id} is of {run.data.task}; image by image only {CLASSIFICATION.name} is compared")
                continue
            predictions.append(read_predictions(folder.predictions, folder.id, part="test", classes=run.data.classes))
        except FileNotFoundError:
            problems.append(f"compare: {folder.id} has no predictions kept (train it with --keep predictions)")
        except DamagedFile as error:
            problems.append(f"compare: {error}")
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    return predictions


def _paired(a: Predictions, b: Predictions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the images that both have stand in each, in the first one's order."""
    places_a, places_b = _places(a), _places(b)
    both = [key for key in places_a if key in places_b]
    return (
        np.array([places_a[key] for key in both], dtype=np.int64),
        np.array([places_b[key] for key in both], dtype=np.int64),
    )


def _places(predictions: Predictions) -> dict[tuple[bytes, int], int]:
    """Where each image stands, by its key and, since keys may repeat, by how many of the same stand before it."""
    before: Counter[bytes] = Counter()
    places = {}
    for place, row in enumerate(predictions.keys):
        key = row.tobytes()
        places[key, before[key]] = place
        before[key] += 1
    return places
