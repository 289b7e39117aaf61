"""Batches as index tensors in an order that is a pure function of (seed, epoch), gathered where the images lie."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kdzoo.data.images import Subset
from kdzoo.seeds import generator


def order(samples: int, seed: int, epoch: int) -> Tensor:
    """The order of the samples in an epoch, a permutation (samples,) int64."""
    return torch.randperm(samples, generator=generator(seed, "order", epoch))


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Batches in an epoch: the last one may be short, but one of a single sample is dropped (batch norm cannot take it)."""
    whole, rest = divmod(samples, batch_size)
    return whole + (rest > 1 or samples == 1)


def batches(samples: int, batch_size: int, seed: int, epoch: int, start: int = 0) -> Iterator[Tensor]:
    """The index tensors of an epoch's batches from number `start` on."""
    drawn = order(samples, seed, epoch)
    for number in range(start, steps_per_epoch(samples, batch_size)):
        yield drawn[number * batch_size : (number + 1) * batch_size]


def partners(targets: Tensor, seed: int, epoch: int) -> Tensor:
    """For each sample another of its class, each of them equally likely; itself where it has no other. (N,) int64."""
    by_class = targets.argsort(stable=True)
    rank = torch.empty_like(by_class)
    rank[by_class] = torch.arange(len(targets))
    which = targets + 1  # those without a label are a class of their own
    counts = torch.bincount(which)
    start, count = (counts.cumsum(0) - counts)[which], counts[which]
    share = torch.rand(len(targets), generator=generator(seed, "partner", epoch), dtype=torch.float64)
    step = 1 + (share * (count - 1)).long().clamp(max=(count - 2).clamp(min=0))
    return by_class[start + (rank - start + step) % count]


def gather(subset: Subset, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) uint8 and targets (B,) int64 at `index`, on the device."""
    here = index.to(subset.images.device)
    images, targets = (part.index_select(0, here).to(device, non_blocking=True) for part in (subset.images, subset.targets))
    return images, targets
