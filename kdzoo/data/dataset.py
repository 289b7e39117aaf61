"""What a data set is once it is read: images in canonical order, their targets, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.task import Task

Array = NDArray[np.uint8]


@dataclass(frozen=True)
class LazyImages:
    """Images that lie in files. Indexing picks some of them, still unread; `loader.fetch` reads.

    read: the pixels (C, H, W) uint8 of a place. places: those of these images, (N,) int64. image: the shape of one.
    """

    read: Callable[[int], Array]
    places: Tensor
    image: tuple[int, int, int]
    device = torch.device("cpu")
    """where an index has to be"""

    def __getitem__(self, index: Tensor | slice) -> LazyImages:
        return replace(self, places=self.places[index])

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.places), *self.image)


Pixels = Tensor | LazyImages
"""images (N, C, H, W) uint8, in memory or in files; or maps of something else than light, float32 in memory from 0 to 255"""


def as_lazy(images: Tensor) -> LazyImages:
    """Images (N, C, H, W) in the CPU's memory as what is read image by image."""
    _, channels, height, width = images.shape
    return LazyImages(images.numpy().__getitem__, torch.arange(len(images)), (channels, height, width))


@dataclass(frozen=True)
class Subset:
    """images (N, C, H, W) uint8, in memory or in files, or maps (`Pixels`); targets (N,) on the CPU, int64 with -1 where there is no
    label, or float32 with NaN there where the task is not one of classes; (N, C) where it learns several columns.

    keys: a digest of each sample, (N, 16) uint8 on the CPU, by which it is known in another run; the same sample again has the
    same. None where nobody asks for them. columns: of a set with several columns of targets all of them, (N, C) int64, whichever
    are learned; None of any other.
    """

    images: Pixels
    targets: Tensor
    keys: Tensor | None = None
    columns: Tensor | None = None


@dataclass(frozen=True)
class ColumnNames:
    """A column of targets of a data set: its name, and the names of its classes."""

    name: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """A data set in canonical order: sorted by a digest of pixels and label.

    mean, std: of [0, 1] pixels. notes: what was mapped, skipped or found twice, a sentence each. source: where the
    images come from. origins: where each part comes from, in a few words. scales: with which deep grey values of image
    files were decoded (`preprocess.grey_scale`). columns: of a set with several columns of targets all of them, the first of which
    alone is hashed; none of any other. classes: of the column that is learned, of several the first. holds_texts: whether its samples
    are the bytes of texts, (N, 1, 1, W), which networks of texts alone take.
    """

    name: str
    train: Subset
    test: Subset
    classes: tuple[str, ...]
    fingerprint: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    val: Subset | None = None
    notes: tuple[str, ...] = ()
    source: str = ""
    origins: Mapping[str, str] = field(default_factory=dict, hash=False)
    scales: Mapping[str, float] = field(default_factory=dict, hash=False)
    task: Task = CLASSIFICATION
    columns: tuple[ColumnNames, ...] = ()
    holds_texts: bool = False

    @property
    def samples_in_words(self) -> str:
        """What its samples are."""
        return "texts" if self.holds_texts else "maps" if self.holds_maps else "images"

    @property
    def holds_maps(self) -> bool:
        """Whether its samples are float32 maps of something else than light, to which nothing can be done that is made for pixels."""
        return isinstance(self.train.images, Tensor) and self.train.images.is_floating_point()

    @property
    def scores(self) -> int:
        """How many scores a network gives that learns its task; 0 for a backbone that gives its embedding."""
        return 0 if self.task.of_features else sum(column.classes for column in self.task.several) or len(self.classes)

    @property
    def strata(self) -> Tensor:
        """The group of each training sample, (N,) int64, in whose share it is drawn: the first column, whichever are learned."""
        return self.task.strata(self.train.targets) if self.train.columns is None else self.train.columns[:, 0]

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return len(self.columns[0].classes if self.columns else self.classes)

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[1])

    @property
    def height(self) -> int:
        return int(self.train.images.shape[2])

    @property
    def width(self) -> int:
        return int(self.train.images.shape[3])


Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""mean and standard deviation of each channel"""


def statistics(images: Tensor) -> Statistics:
    """Mean and standard deviation of each channel of uint8 images, or of maps, as shares of 255."""
    if images.is_floating_point():
        shares = images.double().transpose(0, 1).flatten(1) / 255
        return _rounded(shares.mean(1), shares.std(1, correction=0))
    return statistics_of(torch.stack([torch.bincount(images[:, c].reshape(-1).int(), minlength=256) for c in range(images.shape[1])]))


def statistics_of(counts: Tensor) -> Statistics:
    """The same from how often each level occurs in each channel, (C, 256)."""
    counts = counts.double()
    levels = torch.arange(256, dtype=torch.float64) / 255
    shares = counts / counts.sum(1, keepdim=True)
    mean = shares @ levels
    std = ((shares * (levels - mean[:, None]) ** 2).sum(1)).sqrt()
    return _rounded(mean, std)


def _rounded(mean: Tensor, std: Tensor) -> Statistics:
    """As they stand in a run: six decimals, and no deviation below a thousandth."""
    return tuple(round(float(m), 6) for m in mean), tuple(round(max(float(s), 1e-3), 6) for s in std)
