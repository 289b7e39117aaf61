"""Folders of image files, one sub-folder a class: read whole before any work, fingerprinted by content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from kdzoo.data.digests import digests, remembered_digests
from kdzoo.data.files import File, Files, content_digest, keep, streams
from kdzoo.data.images import Images, Subset
from kdzoo.errors import InputError
from kdzoo.store import cache_folder

DEFAULT_SIDE = 256
MARGIN = 8 / 7
"""decoded images are larger than what the networks see, so that crops have room: 256 for 224"""
VALIDATION = ("val", "valid", "validation")
TEST_SHARE = 5
"""one image in so many is for testing where a folder brings no test part"""


def load_folder(folder: Path, image_size: int | None, resident: int | None = None) -> Images:
    """The images below `folder`: with train/ and test/ (and val/) sub-folders, or one sub-folder a class, split by class.

    Shorter sides are resized to image_size * 8/7 (256 unless given) and the centre square is kept. resident: the bytes
    that decoded images may take; what is larger stays in its files and is decoded while training, to the same pixels.
    Raises InputError that names files which cannot be read, empty classes, and parts whose classes differ.
    """
    if not folder.is_dir():
        raise InputError(f"data: folder:{folder}: no such folder")
    parts = _parts(folder)
    classes = _classes(parts["train"])
    side = round(image_size * MARGIN) if image_size else DEFAULT_SIDE
    listed = {name: _listed(part, classes) for name, part in parts.items()}
    streamed = streams(sum(map(len, listed.values())), side, resident)
    files = {name: _files(parts[name], found, classes, streamed) for name, found in listed.items()}
    if "test" not in files:
        files["train"], files["test"] = _split(files["train"])
    fingerprint = _fingerprint(files, classes)
    shared = {file.digest for file in files["train"]} & {file.digest for file in files["test"]}
    notes = (f"{len(shared)} test images are in the train part too",) if shared else ()
    places = _places(files)
    whole = Files(tuple(file for part in places for file in files[part]), classes, places["train"], side)
    pixels, (mean, std) = keep(whole, cache_folder() / "data" / f"{fingerprint}-{side}", resident)
    subsets = {
        part: Subset(
            pixels[here.start : here.stop],
            torch.tensor([file.label for file in files[part]], dtype=torch.int64),
            torch.tensor([list(file.digest) for file in files[part]], dtype=torch.uint8),
        )
        for part, here in places.items()
    }
    return Images("folder", subsets["train"], subsets["test"], classes, fingerprint, mean, std, subsets.get("val"), notes)


def _places(files: dict[str, list[File]]) -> dict[str, range]:
    """Where each part stands when all follow each other in the order of their names."""
    places, start = {}, 0
    for part in sorted(files):
        places[part] = range(start, start + len(files[part]))
        start = places[part].stop
    return places


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


def _listed(folder: Path, classes: Sequence[str]) -> list[tuple[str, int]]:
    """The image files of a part and their classes; InputError for classes that differ or have none."""
    here = _classes(folder)
    if here != tuple(classes):
        differ = sorted(set(here) ^ set(classes))
        raise InputError(f"data: {folder}: its classes differ from those of the train part: {', '.join(differ)}")
    found: list[tuple[str, int]] = []
    problems = []
    for label, name in enumerate(classes):
        paths = [p for p in sorted((folder / name).rglob("*")) if p.suffix.lower() in IMG_EXTENSIONS and not p.name.startswith(".")]
        if not paths:
            problems.append(f"data: {folder / name}: no image files")
        found += [(str(path), label) for path in paths]
    if problems:
        raise InputError(*problems)
    return found


def _files(folder: Path, listed: Sequence[tuple[str, int]], classes: Sequence[str], streamed: bool) -> list[File]:
    """The files in canonical order."""
    labels = dict(listed)
    paths = list(labels)

    def digest_of(path: str) -> bytes:
        return content_digest(classes[labels[path]], Path(path).read_bytes())

    found = remembered_digests(folder, paths, digest_of) if streamed else digests(paths, digest_of)
    return sorted((File(path, labels[path], one) for path, one in zip(paths, found, strict=True)), key=lambda file: file.digest)


def _split(files: list[File]) -> tuple[list[File], list[File]]:
    """Train and test: of every class the files with the lowest digests are the test part, a fifth and at least one."""
    test: set[bytes] = set()
    for label in {file.label for file in files}:
        members = sorted({file.digest for file in files if file.label == label})
        if len(members) < 2:
            one = next(file.path for file in files if file.label == label)
            raise InputError(f"data: {Path(one).parent}: one image is not enough to train and to test on")
        test |= set(members[: max(1, round(len(members) / TEST_SHARE))])
    return [f for f in files if f.digest not in test], [f for f in files if f.digest in test]


def _fingerprint(files: dict[str, list[File]], classes: Sequence[str]) -> str:
    digest = hashlib.blake2b(repr(tuple(classes)).encode(), digest_size=16)
    for name in sorted(files):
        digest.update(f"{name} {len(files[name])}".encode())
        for file in files[name]:
            digest.update(file.digest)
    return digest.hexdigest()
