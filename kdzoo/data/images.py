"""What a data set is once it is read: images in canonical order, their targets, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Subset:
    """images (N, C, H, W) uint8, in memory or mapped from a file; targets (N,) int64, -1 where there is no label."""

    images: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Images:
    """A data set in canonical order: sorted by a digest of pixels and label. mean and std are of [0, 1] pixels."""

    name: str
    train: Subset
    test: Subset
    classes: tuple[str, ...]
    fingerprint: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    val: Subset | None = None
    notes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[1])

    @property
    def height(self) -> int:
        return int(self.train.images.shape[2])

    @property
    def width(self) -> int:
        return int(self.train.images.shape[3])


def statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 images, as shares of 255."""
    counts = torch.stack([torch.bincount(images[:, c].reshape(-1).int(), minlength=256) for c in range(images.shape[1])]).double()
    levels = torch.arange(256, dtype=torch.float64) / 255
    shares = counts / counts.sum(1, keepdim=True)
    mean = shares @ levels
    std = ((shares * (levels - mean[:, None]) ** 2).sum(1)).sqrt()
    return tuple(round(float(m), 6) for m in mean), tuple(round(max(float(s), 1e-3), 6) for s in std)
