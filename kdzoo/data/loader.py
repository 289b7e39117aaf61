"""Batches as index tensors in an order that is a pure function of (seed, epoch), fetched from where the images lie."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from kdzoo.data.dataset import Array, Pixels, Stored, stored
from kdzoo.data.split import Parts
from kdzoo.runs.spec import steps_per_epoch
from kdzoo.seeds import generator

AHEAD = 2
"""batches that are being read while one is in use"""
TOGETHER = 8
"""images that a thread reads at a time"""
WHOLE_BATCH = 256
DEVICE_SHARE = 0.25
"""of a CUDA device's free memory: images that take no more are kept there"""


def order(samples: int, seed: int, epoch: int) -> Tensor:
    """The order of the samples in an epoch, a permutation (samples,) int64."""
    return torch.randperm(samples, generator=generator(seed, "order", epoch))


def batches(
    samples: int,
    batch_size: int,
    seed: int,
    epoch: int,
    start: int = 0,
    device: torch.device | str = "cpu",
    *,
    drop_last: bool = False,
) -> Iterator[Tensor]:
    """The index tensors of an epoch's batches from number `start` on; the device gets them all at once."""
    drawn = order(samples, seed, epoch).to(device)
    for number in range(start, steps_per_epoch(samples, batch_size, drop_last=drop_last)):
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


def fetch(images: Pixels, indices: Iterable[Tensor], device: torch.device) -> Generator[Tensor, None, None]:
    """The images (B, C, H, W) uint8 at each of `indices`, in order, on the device; what is not there is read ahead.

    An index is where the images are (`images.device`).
    """
    if isinstance(images, Tensor) and images.device.type == device.type:
        for index in indices:
            yield images[index]
    else:
        yield from read_ahead(images if isinstance(images, Stored) else stored(images), indices, device)


def read_ahead(images: Stored, indices: Iterable[Tensor], device: torch.device) -> Generator[Tensor, None, None]:
    """The batches at `indices`, of which AHEAD are being read, in as many threads as torch has, while one is in use.

    Threads, since Pillow decodes without holding the interpreter: nothing is copied between processes, and none is left
    behind. Pinned where the device is CUDA, so that the copy to it waits for nothing.
    """
    pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="kdzoo-read")
    waiting: deque[tuple[Tensor, list[Future[None]]]] = deque()
    try:
        for index in indices:
            waiting.append(_begin(images[index], pool, pinned=device.type == "cuda"))
            if len(waiting) > AHEAD:
                yield _end(*waiting.popleft()).to(device, non_blocking=True)
        while waiting:
            yield _end(*waiting.popleft()).to(device, non_blocking=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(images: Stored, pool: ThreadPoolExecutor, *, pinned: bool) -> tuple[Tensor, list[Future[None]]]:
    """A batch that is being filled, and what has to be waited for."""
    batch = torch.empty(images.shape, dtype=torch.uint8, pin_memory=pinned)
    rows: Array = batch.numpy()

    def fill(first: int, places: list[int]) -> None:
        for row, place in enumerate(places, start=first):
            rows[row] = images.read(place)

    places = images.places.tolist()
    return batch, [pool.submit(fill, first, places[first : first + TOGETHER]) for first in range(0, len(places), TOGETHER)]


def _end(batch: Tensor, filling: list[Future[None]]) -> Tensor:
    for future in filling:
        future.result()
    return batch


def whole(images: Pixels, device: torch.device) -> Tensor:
    """All images in the memory of a device, (N, C, H, W) uint8."""
    if isinstance(images, Tensor):
        return images.to(device)
    held = torch.empty(images.shape, dtype=torch.uint8, device=device)
    start = 0
    for batch in fetch(images, torch.split(torch.arange(len(held)), WHOLE_BATCH), device):
        held[start : start + len(batch)] = batch
        start += len(batch)
    return held


def on_device(parts: Parts, device: torch.device) -> Parts:
    """The parts with their images on a CUDA device where they fit beside the networks; on any other device as they are."""
    if device.type != "cuda":
        return parts
    return held_on(parts, device, int(torch.cuda.mem_get_info(device)[0] * DEVICE_SHARE))


def held_on(parts: Parts, device: torch.device, budget: int) -> Parts:
    """The parts with all images in the memory of a device, or as they are where that takes more than `budget` bytes."""
    subsets = [subset for subset in (parts.train, parts.val, parts.test) if subset is not None]
    if sum(math.prod(subset.images.shape) for subset in subsets) > budget:
        return parts
    train, *held, test = (replace(subset, images=whole(subset.images, device)) for subset in subsets)
    return replace(parts, train=train, val=held[0] if held else None, test=test)
