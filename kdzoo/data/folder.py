"""Folders of image files, one sub-folder a class: read whole before any work, decoded once, fingerprinted by content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS

from kdzoo.data.images import Images, Subset, statistics
from kdzoo.errors import InputError
from kdzoo.store import cache_folder

Array = NDArray[np.uint8]
DEFAULT_SIDE = 256
MARGIN = 8 / 7
"""decoded images are larger than what the networks see, so that crops have room: 256 for 224"""
RESIDENT_BYTES = 2 * 1024**3
"""larger sets are kept in a memory-mapped file"""
VALIDATION = ("val", "valid", "validation")
TEST_SHARE = 5
"""one image in so many is for testing where a folder brings no test part"""


@dataclass(frozen=True)
class File:
    """An image file, its class, and the digest of its class's name and its bytes."""

    path: Path
    label: int
    digest: bytes


def load_folder(folder: Path, image_size: int | None) -> Images:
    """The images below `folder`: with train/ and test/ (and val/) sub-folders, or one sub-folder a class, split by class.

    Shorter sides are resized to image_size * 8/7 (256 unless given) and the centre square is kept. Raises InputError
    that names files which cannot be read, empty classes, and parts whose classes differ.
    """
    if not folder.is_dir():
        raise InputError(f"data: folder:{folder}: no such folder")
    parts = _parts(folder)
    classes = _classes(parts["train"])
    files = {name: _files(part, classes) for name, part in parts.items()}
    if "test" not in files:
        files["train"], files["test"] = _split(files["train"])
    side = round(image_size * MARGIN) if image_size else DEFAULT_SIDE
    fingerprint = _fingerprint(files, classes)
    shared = {file.digest for file in files["train"]} & {file.digest for file in files["test"]}
    notes = (f"{len(shared)} test images are in the train part too",) if shared else ()
    subsets = _decode(files, side, fingerprint)
    mean, std = statistics(subsets["train"].images)
    return Images("folder", subsets["train"], subsets["test"], classes, fingerprint, mean, std, subsets.get("val"), notes)


def _parts(folder: Path) -> dict[str, Path]:
    below = {entry.name.lower(): entry for entry in sorted(folder.iterdir()) if entry.is_dir()}
    if "train" not in below:
        return {"train": folder}
    held = next((below[name] for name in VALIDATION if name in below), None)
    test = below.get("test") or held
    if test is None:
        raise InputError(f"data: {folder} has train/ but neither test/ nor val/; the final numbers need images that were never trained on")
    return {"train": below["train"], "test": test} | ({"val": held} if held is not None and test is not held else {})


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    if len(classes) < 2:
        raise InputError(f"data: {folder}: expected one sub-folder for each of two or more classes, found {list(classes) or 'none'}")
    return classes


def _files(folder: Path, classes: Sequence[str]) -> list[File]:
    """The image files of a part in canonical order; InputError for classes that differ or have none."""
    here = _classes(folder)
    if here != tuple(classes):
        differ = sorted(set(here) ^ set(classes))
        raise InputError(f"data: {folder}: its classes differ from those of the train part: {', '.join(differ)}")
    found: list[File] = []
    problems = []
    for label, name in enumerate(classes):
        paths = [p for p in sorted((folder / name).rglob("*")) if p.suffix.lower() in IMG_EXTENSIONS and not p.name.startswith(".")]
        if not paths:
            problems.append(f"data: {folder / name}: no image files")
        for path in paths:
            found.append(File(path, label, hashlib.blake2b(name.encode() + b"/" + path.read_bytes(), digest_size=16).digest()))
    if problems:
        raise InputError(*problems)
    return sorted(found, key=lambda file: file.digest)


def _split(files: list[File]) -> tuple[list[File], list[File]]:
    """Train and test: of every class the files with the lowest digests are the test part, a fifth and at least one."""
    test: set[bytes] = set()
    for label in {file.label for file in files}:
        members = sorted({file.digest for file in files if file.label == label})
        if len(members) < 2:
            one = next(file.path for file in files if file.label == label)
            raise InputError(f"data: {one.parent}: one image is not enough to train and to test on")
        test |= set(members[: max(1, round(len(members) / TEST_SHARE))])
    return [f for f in files if f.digest not in test], [f for f in files if f.digest in test]


def _fingerprint(files: dict[str, list[File]], classes: Sequence[str]) -> str:
    digest = hashlib.blake2b(repr(tuple(classes)).encode(), digest_size=16)
    for name in sorted(files):
        digest.update(f"{name} {len(files[name])}".encode())
        for file in files[name]:
            digest.update(file.digest)
    return digest.hexdigest()


def _decode(files: dict[str, list[File]], side: int, fingerprint: str) -> dict[str, Subset]:
    """Every part's pixels (N, 3, side, side); in a memory-mapped file of the cache where they are many."""
    count = sum(map(len, files.values()))
    pixels: Array
    kept = None
    if count * 3 * side * side > RESIDENT_BYTES:
        kept = cache_folder() / "data" / f"{fingerprint}-{side}.npy"
    if kept is not None and kept.exists():
        pixels = np.load(kept, mmap_mode="r+")
    else:
        pixels = _read_all([file for part in sorted(files) for file in files[part]], side, kept)
    subsets, start = {}, 0
    for part in sorted(files):
        end = start + len(files[part])
        targets = torch.tensor([file.label for file in files[part]], dtype=torch.int64)
        subsets[part] = Subset(torch.from_numpy(pixels[start:end]), targets)
        start = end
    return subsets


def _read_all(files: list[File], side: int, kept: Path | None) -> Array:
    shape = (len(files), 3, side, side)
    partial = None
    pixels: Array
    if kept is None:
        pixels = np.empty(shape, dtype=np.uint8)
    else:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}.partial")
        pixels = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    problems: list[str] = []

    def read(position: int) -> None:
        try:
            pixels[position] = decode(files[position].path, side)
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            problems.append(f"{files[position].path} ({error})")

    with ThreadPoolExecutor() as pool:
        list(pool.map(read, range(len(files))))
    if problems:
        if partial is not None:
            partial.unlink()
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InputError(f"data: {len(problems)} image file(s) cannot be read: {'; '.join(sorted(problems)[:5])}{more}")
    if partial is not None and kept is not None:
        os.replace(partial, kept)
    return pixels


def decode(path: Path, side: int) -> Array:
    """One image as (3, side, side) uint8: upright, RGB, shorter side resized, centre square kept."""
    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened)
        if upright.mode.startswith("I;16"):
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        rgb = upright.convert("RGBA").convert("RGB") if upright.mode in ("P", "PA") else upright.convert("RGB")
        square = ImageOps.fit(rgb, (side, side), method=Image.Resampling.BILINEAR)
    return np.asarray(square).transpose(2, 0, 1)
