"""Image files: where the pixels of many are kept, and what all of them together show."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdzoo.data.dataset import Array, LazyImages, Pixels, Statistics, statistics_of
from kdzoo.data.pixels import DECODER, UNREADABLE, channels_first, decode, reason_of
from kdzoo.data.preprocess import Scales, square
from kdzoo.data.repeats import Repeat, Repeats, find_repeats
from kdzoo.errors import InputError
from kdzoo.runs.seals import DamagedFile, read_sealed, write_sealed
from kdzoo.text import number_of

IN_MEMORY_BYTES = 2 * 1024**3
"""decoded images beyond this size are kept in a memory-mapped file"""
IMAGE_CACHE_BYTES = 16 * 1024**3
"""and beyond this size they are not kept: the files are decoded again and again, ahead of their use"""
FILES_PER_TASK = 32
"""files that a thread decodes at a time when all are"""


@dataclass(frozen=True, slots=True)
class File:
    """An image file, its class, and the digest of its class's name and its bytes."""

    path: str
    label: int
    digest: bytes


@dataclass(frozen=True)
class Files:
    """All image files of a data set, in canonical order.

    parts: the places of each part's files, one after the other. side: what the images are decoded to. scales: of their
    deep grey values (`pixels.find_scales`).
    """

    files: tuple[File, ...]
    classes: tuple[str, ...]
    parts: Mapping[str, range]
    side: int
    scales: Scales = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.files), 3, self.side, self.side)


@dataclass(frozen=True)
class Survey:
    """What all decoded images of a data set have in common.

    mean, std: of the training images. plain: how many images of each class are of one colour, and `plain_places` some of them.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    repeats: Repeats
    plain: Mapping[int, int]
    plain_places: tuple[int, ...]

    @property
    def statistics(self) -> Statistics:
        return self.mean, self.std


def content_digest(class_name: str, content: bytes) -> bytes:
    """What identifies an image: 16 bytes of its class's name and its file's content."""
    return hashlib.blake2b(class_name.encode("utf-8", "surrogateescape") + b"/" + content, digest_size=16).digest()


def should_stream(count: int, side: int, image_cache: int | None) -> bool:
    """Whether `count` decoded images take more than `image_cache` bytes (None: IMAGE_CACHE_BYTES), so that they stay in their files."""
    return count * 3 * side * side > (IMAGE_CACHE_BYTES if image_cache is None else image_cache)


def keep_pixels(files: Files, cache_path: Path, image_cache: int | None) -> tuple[Pixels, Survey]:
    """The pixels of all files, (N, 3, side, side), and what a survey of them shows.

    They are in memory, in a memory-mapped file of the cache, or stay in the images' own files, by their size. Whichever
    it is, every file is decoded once before any work: one that cannot be is found in time, and the statistics are of all
    training images. What need not be done again lies beside `cache_path`, under the version of the decoder; where that is
    damaged it is made again. Raises InputError that names files which cannot be read.
    """
    streams = should_stream(len(files.files), files.side, image_cache)
    if not streams and math.prod(files.shape) <= IN_MEMORY_BYTES:
        pixels: Array = np.empty(files.shape, dtype=np.uint8)
        survey: Survey | None = scan(files, pixels)
        assert survey is not None
        return torch.from_numpy(pixels), survey
    summary, pixel_file = (cache_path.with_name(f"{cache_path.name}-decoder{DECODER}.{kind}") for kind in ("json", "npy"))
    survey, digest = _read_summary(summary)
    rows = None if streams else _open_pixels(pixel_file, files.shape, digest)
    if survey is None or not (streams or rows is not None):
        survey = scan(files) if streams else _write(files, pixel_file)
        digest = None if streams else _digest(pixel_file)
        write_sealed(summary, json.dumps({**asdict(survey), "pixels": digest}).encode(), summary.name)
        rows = None if streams else np.load(pixel_file, mmap_mode="r")
    read: Callable[[int], Array] = partial(read_file, files) if rows is None else rows.__getitem__
    return LazyImages(read, torch.arange(len(files.files)), files.shape[1:]), survey


def _read_summary(summary: Path) -> tuple[Survey | None, str | None]:
    """An earlier survey, None where there is none or a damaged one, and the digest of the pixels that it wrote."""
    try:
        content: dict[str, Any] = json.loads(read_sealed(summary, summary.name))
    except (FileNotFoundError, DamagedFile):
        return None, None

    def repeat_of(one: Mapping[str, Any]) -> Repeat:
        return Repeat(one["count"], tuple((first, second) for first, second in one["examples"]))

    repeats = content["repeats"]
    shared = {parts: repeat_of(one) for parts, one in repeats["shared"].items()}
    survey = Survey(
        mean=tuple(content["mean"]),
        std=tuple(content["std"]),
        repeats=Repeats(shared, repeat_of(repeats["two_labels"]), repeat_of(repeats["copies"])),
        plain={int(label): count for label, count in content["plain"].items()},
        plain_places=tuple(content["plain_places"]),
    )
    return survey, content.get("pixels")


def _open_pixels(file: Path, shape: tuple[int, ...], digest: str | None) -> Array | None:
    """The pixels in a file of the cache; None where there is none of this shape and digest."""
    try:
        rows: Array = np.load(file, mmap_mode="r")
        return rows if rows.shape == shape and rows.dtype == np.uint8 and _digest(file) == digest else None
    except (OSError, ValueError, EOFError):
        return None


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "blake2b").hexdigest()


def _write(files: Files, pixel_file: Path) -> Survey:
    """Write all pixels to a file, whole or not at all."""
    pixel_file.parent.mkdir(parents=True, exist_ok=True)
    partial_file = pixel_file.with_suffix(f".{os.getpid()}.partial")
    try:
        survey = scan(files, np.lib.format.open_memmap(partial_file, mode="w+", dtype=np.uint8, shape=files.shape))
        os.replace(partial_file, pixel_file)
    finally:
        partial_file.unlink(missing_ok=True)
    return survey


def scan(files: Files, pixels: Array | None = None) -> Survey:
    """Decode every file once, into `pixels` where they are kept; raises InputError that names the files that cannot be."""
    problems: list[str] = []
    plain: list[int] = []
    keys: NDArray[Any] = np.zeros((len(files.files), 2), dtype=">u8")

    def scan_some(start: int) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = np.zeros((3, 256), dtype=np.int64)
        for place, file in enumerate(files.files[start : start + FILES_PER_TASK], start=start):
            try:
                image = square(file.path, files.side, files.scales)
            except UNREADABLE as error:
                problems.append(f"{file.path} ({reason_of(error)})")
                continue
            if place in files.parts["train"]:
                counts += np.reshape(image.histogram(), (3, 256))
            rows = channels_first(image)
            keys[place] = np.frombuffer(hashlib.blake2b(image.tobytes(), digest_size=16).digest(), dtype=">u8")
            if all(low == high for low, high in image.getextrema()):  # type: ignore[misc]
                plain.append(place)
            if pixels is not None:
                pixels[place] = rows
        return counts

    with ThreadPoolExecutor() as pool:
        counts = sum(pool.map(scan_some, range(0, len(files.files), FILES_PER_TASK)))
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        names = "; ".join(sorted(problems)[:5])
        raise InputError(
            f"data: {number_of(len(problems), 'image file')} cannot be read: {names}{more}; --skip-unreadable leaves such files out"
        )
    labels = np.array([file.label for file in files.files], dtype=np.int64)
    repeats = find_repeats(keys, labels, list(files.parts.items()))
    mean, std = statistics_of(torch.from_numpy(counts))
    return Survey(mean, std, repeats, dict(Counter(labels[plain].tolist())), tuple(sorted(plain)[:2]))


def read_file(files: Files, place: int) -> Array:
    """The pixels of a file again; raises InputError where it is no longer what it was when the folder was read."""
    file = files.files[place]
    try:
        content = Path(file.path).read_bytes()
        if content_digest(files.classes[file.label], content) == file.digest:
            return decode(io.BytesIO(content), files.side, files.scales)
    except UNREADABLE as error:
        raise InputError(
            f"data: {file.path} cannot be read any more ({reason_of(error)}); restore it, then run the same command to resume"
        ) from error
    raise InputError(f"data: {file.path} has changed since its folder was read; restore the old file, then run the same command to resume")
