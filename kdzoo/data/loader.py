"""Images fetched from where they lie, in memory or in files, read ahead of their use."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from kdzoo.data.dataset import Array, LazyImages, Pixels, as_lazy
from kdzoo.data.split import Splits

PREFETCH_BATCHES = 2
"""batches that are being read while one is in use"""
IMAGES_PER_TASK = 8
"""images that a thread reads at a time"""
COPY_CHUNK = 256
DEVICE_SHARE = 0.25
"""of a CUDA device's free memory: images that take no more are kept there"""


def fetch(images: Pixels, indices: Iterable[Tensor], device: torch.device) -> Generator[Tensor, None, None]:
    """The images (B, C, H, W) uint8 at each of `indices`, in order, on the device; what is not there is read ahead.

    An index is where the images are (`images.device`).
    """
    if isinstance(images, Tensor) and images.device.type == device.type:
        for index in indices:
            yield images[index]
    else:
        yield from read_ahead(images if isinstance(images, LazyImages) else as_lazy(images), indices, device)


def fetch_once(images: Pixels, index: Tensor, device: torch.device) -> Tensor:
    """The images (B, C, H, W) uint8 at an index that nobody has read ahead."""
    return next(fetch(images, [index.to(images.device)], device))


def read_ahead(images: LazyImages, indices: Iterable[Tensor], device: torch.device) -> Generator[Tensor, None, None]:
    """The batches at `indices`, of which PREFETCH_BATCHES are being read, in as many threads as torch has, while one is in use.

    Threads, since Pillow decodes without holding the interpreter: nothing is copied between processes, and none is left
    behind. Pinned where the device is CUDA, so that the copy to it waits for nothing.
    """
    pool = ThreadPoolExecutor(torch.get_num_threads(), thread_name_prefix="kdzoo-read")
    waiting: deque[tuple[Tensor, list[Future[None]]]] = deque()
    try:
        for index in indices:
            waiting.append(_begin(images[index], pool, pinned=device.type == "cuda"))
            if len(waiting) > PREFETCH_BATCHES:
                yield _end(*waiting.popleft()).to(device, non_blocking=True)
        while waiting:
            yield _end(*waiting.popleft()).to(device, non_blocking=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(images: LazyImages, pool: ThreadPoolExecutor, *, pinned: bool) -> tuple[Tensor, list[Future[None]]]:
    """Start to fill a batch in threads; returns it with the futures to wait for."""
    batch = torch.empty(images.shape, dtype=torch.uint8, pin_memory=pinned)
    rows: Array = batch.numpy()

    def fill(first: int, places: list[int]) -> None:
        for row, place in enumerate(places, start=first):
            rows[row] = images.read(place)

    places = images.places.tolist()
    return batch, [pool.submit(fill, first, places[first : first + IMAGES_PER_TASK]) for first in range(0, len(places), IMAGES_PER_TASK)]


def _end(batch: Tensor, filling: list[Future[None]]) -> Tensor:
    """The batch once it is filled; raises what a thread raised."""
    for future in filling:
        future.result()
    return batch


def load_all(images: Pixels, device: torch.device) -> Tensor:
    """All images in the memory of a device, (N, C, H, W) uint8."""
    if isinstance(images, Tensor):
        return images.to(device)
    loaded = torch.empty(images.shape, dtype=torch.uint8, device=device)
    start = 0
    for batch in fetch(images, torch.split(torch.arange(len(loaded)), COPY_CHUNK), device):
        loaded[start : start + len(batch)] = batch
        start += len(batch)
    return loaded


def place_on_device(splits: Splits, device: torch.device) -> Splits:
    """The parts with their images on a CUDA device where they fit beside the networks; on any other device as they are."""
    if device.type != "cuda":
        return splits
    return move_if_fits(splits, device, int(torch.cuda.mem_get_info(device)[0] * DEVICE_SHARE))


def _bytes_of_a_value(images: Pixels) -> int:
    return images.element_size() if isinstance(images, Tensor) else 1


def move_if_fits(splits: Splits, device: torch.device, budget: int) -> Splits:
    """The parts with all images in the memory of a device, or as they are where that takes more than `budget` bytes."""
    subsets = [subset for subset in (splits.train, splits.val, splits.test) if subset is not None]
    if sum(math.prod(subset.images.shape) * _bytes_of_a_value(subset.images) for subset in subsets) > budget:
        return splits
    train, *rest, test = (replace(subset, images=load_all(subset.images, device)) for subset in subsets)
    return replace(splits, train=train, val=rest[0] if rest else None, test=test)
