"""A saved teacher's file as it is in memory: answers by sample and view (docs/saved-teachers.md has the format)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdzoo.contract.needs import Need
from kdzoo.runs.recipe import Augment

CENTRE = -1
"""the number of the view that evaluation takes: the whole image, or its centre"""
KEY_BYTES = 16
LEAST_MASS = 1e-12
"""what is left for the other classes at least: a logarithm of zero is no score"""


@dataclass(frozen=True)
class SavedFile:
    """The answers of a teacher to N (sample, view) pairs.

    digest: sha256 of the file. keys (N, 16) uint8: the digests of the samples. views (N,) int64: CENTRE, or the number of a
    padded crop and flip under `augment`. logits (N, K) float32, or top_log_probs (N, k) float32 with top_classes (N, k)
    int64, the logarithms of the k largest probabilities at T = 1. embedding (N, D) float32, or None.
    teacher: the id of the run that is the live teacher, where it is one.
    """

    path: Path
    digest: str
    name: str
    classes: int
    keys: NDArray[np.uint8]
    views: NDArray[np.int64]
    all_logits: Tensor | None
    top_log_probs: Tensor | None
    top_classes: Tensor | None
    embedding: Tensor | None
    class_names: tuple[str, ...] | None = None
    augment: Mapping[str, Any] | None = None
    teacher: str | None = None

    @property
    def offers(self) -> Need:
        """The outputs that it can give; as an ensemble it is one network."""
        return Need.LOGITS | Need.MEMBERS | (Need.NOTHING if self.embedding is None else Need.EMBEDDING)

    @property
    def k(self) -> int | None:
        """How many classes of each row it holds; None for all."""
        return None if self.top_classes is None else self.top_classes.shape[1]

    def has_views_of(self, augment: Augment) -> bool:
        """Whether it holds the very views that an augmentation makes, by their numbers."""
        same = self.augment is not None and dict(self.augment) == augment.model_dump(mode="json")
        return same and augment.has_few_views and bool((self.views != CENTRE).any())

    @cached_property
    def _samples(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The distinct keys in ascending order, and which of them each row has."""
        return np.unique(as_values(self.keys), return_inverse=True)

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """A number for each distinct sample and view, ascending, and the first row that has it."""
        return np.unique(self._samples[1] * self._views_each + self.views - CENTRE, return_index=True)

    @property
    def _views_each(self) -> int:
        return int(self.views.max()) - CENTRE + 1

    def find(self, keys: Tensor, views: Tensor | int = CENTRE) -> Tensor:
        """The first rows (M,) int64 of samples by their keys (M, 16) and views (M,); -1 where there is none."""
        samples, _ = self._samples
        numbers, rows = self._places
        values, view = as_values(keys.numpy()), np.asarray(views)
        sample = np.searchsorted(samples, values).clip(max=len(samples) - 1)
        number = sample * self._views_each + view - CENTRE
        place = np.searchsorted(numbers, number).clip(max=len(numbers) - 1)
        exists = (samples[sample] == values) & (numbers[place] == number) & (view - CENTRE < self._views_each)
        return torch.from_numpy(np.where(exists, rows[place], -1))

    def logits(self, rows: Tensor) -> Tensor:
        """Class scores (B, K) float32 of rows (B,): their softmax at T = 1 is the teacher's."""
        if self.all_logits is not None:
            return self.all_logits[rows]
        assert self.top_log_probs is not None
        assert self.top_classes is not None
        return spread(self.top_log_probs[rows], self.top_classes[rows], self.classes)


def as_values(keys: NDArray[np.uint8]) -> NDArray[Any]:
    """Keys (N, 16) as one value each, (N,), which can be compared and sorted."""
    return np.ascontiguousarray(keys).view(np.dtype((np.void, KEY_BYTES))).ravel()


def spread(top_log_probs: Tensor, top_classes: Tensor, classes: int) -> Tensor:
    """Log-probabilities (B, K) at T = 1 from the k largest (B, k): what is left of 1 is divided equally over the other K - k."""
    logs = top_log_probs.double()
    others = classes - logs.shape[1]
    if not others:
        whole = logs.new_zeros(len(logs), classes)
    else:
        rest = (1 - logs.exp().sum(1, keepdim=True)).clamp(min=LEAST_MASS)
        whole = (rest / others).log().expand(-1, classes).clone()
    return whole.scatter_(1, top_classes, logs).float()
