"""Image files: how one is decoded, and where the pixels of many are kept."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from kdzoo.data.images import Array, Pixels, Statistics, Stored, statistics_of
from kdzoo.errors import InputError
from kdzoo.store import write_json

IN_MEMORY_BYTES = 2 * 1024**3
"""decoded images beyond this size are kept in a memory-mapped file"""
RESIDENT_BYTES = 16 * 1024**3
"""and beyond this size they are not kept: the files are decoded again and again, ahead of their use"""
TOGETHER = 32
"""files that a thread decodes at a time when all are"""
UNREADABLE = (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True, slots=True)
class File:
    """An image file, its class, and the digest of its class's name and its bytes."""

    path: str
    label: int
    digest: bytes


@dataclass(frozen=True)
class Files:
    """All image files of a data set, in canonical order. trained: the places of the training images. side: what they are decoded to."""

    files: tuple[File, ...]
    classes: tuple[str, ...]
    trained: range
    side: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.files), 3, self.side, self.side)


def content_digest(class_name: str, content: bytes) -> bytes:
    """What identifies an image: 16 bytes of its class's name and its file's content."""
    return hashlib.blake2b(class_name.encode() + b"/" + content, digest_size=16).digest()


def streams(count: int, side: int, resident: int | None) -> bool:
    """Whether the decoded pixels of so many images are more than may be kept: `resident` bytes, RESIDENT_BYTES for None."""
    return count * 3 * side * side > (RESIDENT_BYTES if resident is None else resident)


def keep(files: Files, known: Path, resident: int | None) -> tuple[Pixels, Statistics]:
    """The pixels of all files, (N, 3, side, side), and the mean and deviation of the training images.

    They are in memory, in a memory-mapped file of the cache, or stay in the images' own files, by their size. Whichever
    it is, every file is decoded once before any work: one that cannot be is found in time, and the statistics are of all
    training images. What need not be done again lies beside `known`. Raises InputError that names files which cannot be read.
    """
    streamed = streams(len(files.files), files.side, resident)
    if not streamed and math.prod(files.shape) <= IN_MEMORY_BYTES:
        pixels: Array = np.empty(files.shape, dtype=np.uint8)
        found = survey(files, pixels)
        return torch.from_numpy(pixels), found
    summary, mapped = known.with_suffix(".json"), known.with_suffix(".npy")
    if not summary.exists() or not (streamed or mapped.exists()):
        mean, std = survey(files) if streamed else _write(files, mapped)
        write_json(summary, {"mean": mean, "std": std})
    read = partial(read_file, files) if streamed else np.load(mapped, mmap_mode="r").__getitem__
    held = json.loads(summary.read_text())
    return Stored(read, torch.arange(len(files.files)), files.shape[1:]), (tuple(held["mean"]), tuple(held["std"]))


def _write(files: Files, mapped: Path) -> Statistics:
    """Write all pixels to a file, whole or not at all."""
    mapped.parent.mkdir(parents=True, exist_ok=True)
    unfinished = mapped.with_suffix(f".{os.getpid()}.partial")
    try:
        found = survey(files, np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=files.shape))
        os.replace(unfinished, mapped)
    finally:
        unfinished.unlink(missing_ok=True)
    return found


def survey(files: Files, pixels: Array | None = None) -> Statistics:
    """Decode every file once, into `pixels` where they are kept; the mean and deviation of the training images."""
    problems: list[str] = []

    def look(start: int) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = np.zeros((3, 256), dtype=np.int64)
        for place, file in enumerate(files.files[start : start + TOGETHER], start=start):
            try:
                square = _square(file.path, files.side)
            except UNREADABLE as error:
                problems.append(f"{file.path} ({error})")
                continue
            if place in files.trained:
                counts += np.reshape(square.histogram(), (3, 256))
            if pixels is not None:
                pixels[place] = _channels_first(square)
        return counts

    with ThreadPoolExecutor() as pool:
        counts = sum(pool.map(look, range(0, len(files.files), TOGETHER)))
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InputError(f"data: {len(problems)} image file(s) cannot be read: {'; '.join(sorted(problems)[:5])}{more}")
    return statistics_of(torch.from_numpy(counts))


def read_file(files: Files, place: int) -> Array:
    """The pixels of a file again; raises InputError where it is no longer what it was when the folder was read."""
    file = files.files[place]
    try:
        content = Path(file.path).read_bytes()
        if content_digest(files.classes[file.label], content) == file.digest:
            return decode(io.BytesIO(content), files.side)
    except UNREADABLE as error:
        raise InputError(f"data: {file.path} cannot be read any more ({error}); with it back the same command goes on") from error
    raise InputError(f"data: {file.path} has changed since its folder was read; with the old file back the same command goes on")


def decode(source: Path | str | BinaryIO, side: int) -> Array:
    """One image as (3, side, side) uint8: upright, RGB, shorter side resized, centre square kept."""
    return _channels_first(_square(source, side))


def _square(source: Path | str | BinaryIO, side: int) -> Image.Image:
    with Image.open(source) as opened:
        upright = ImageOps.exif_transpose(opened)
        if upright.mode.startswith("I;16"):
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        rgb = upright.convert("RGBA").convert("RGB") if upright.mode in ("P", "PA") else upright.convert("RGB")
        return ImageOps.fit(rgb, (side, side), method=Image.Resampling.BILINEAR)


def _channels_first(square: Image.Image) -> Array:
    return np.asarray(square).transpose(2, 0, 1)
