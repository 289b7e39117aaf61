"""Folders of image files, one sub-folder per class: read whole before any work, fingerprinted by content."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path

import torch

from kdzoo.data.dataset import Dataset, Subset
from kdzoo.data.digests import Row, read_all, read_changed
from kdzoo.data.files import File, Files, Survey, content_digest, keep_pixels, should_stream
from kdzoo.data.known import no_such_folder
from kdzoo.data.listing import Listing, list_images
from kdzoo.data.pixels import DECODER, Look, fault, find_scales, look
from kdzoo.data.preprocess import COLOUR_16, FLOAT, RANGES
from kdzoo.errors import InputError
from kdzoo.files import cache_folder
from kdzoo.text import number_of

DEFAULT_SIDE = 256
MARGIN = 8 / 7
"""decoded images are larger than what the networks see, so that crops have room: 256 for 224"""
LISTED = 20
"""unreadable files that are named"""
TEST_SHARE = 5
"""one image in this number is for testing where a folder has no test part"""


def load_folder(
    folder: Path,
    image_size: int | None,
    image_cache: int | None = None,
    *,
    skip_unreadable: bool = False,
    list_files: Callable[..., Listing] = list_images,
) -> Dataset:
    """The images below `folder`: with train/ and test/ (and val/) sub-folders, or one sub-folder per class, split by class.

    Shorter sides are resized to image_size * 8/7 (256 unless given) and the centre square is kept. image_cache: the bytes
    that decoded images may take; what is larger stays in its files and is decoded while training, to the same pixels.
    skip_unreadable: whether files that cannot be read are skipped, counted and listed in the notes, instead of refused.
    Which files are read, and of which class, is for `list_files` to say; what was skipped, read in another way than plain 8-bit
    pixels, or stands twice is in the notes. Raises InputError that names files which cannot be read, empty classes, and
    parts whose classes differ.
    """
    if not os.path.isdir(folder):
        raise InputError(no_such_folder(folder))
    listing = list_files(folder, skip_unreadable=skip_unreadable)
    side = round(image_size * MARGIN) if image_size else DEFAULT_SIDE
    streams = should_stream(sum(map(len, listing.parts.values())), side, image_cache)
    skipped = dict(listing.unreadable)
    if skip_unreadable:
        listing, damaged = _readable(folder, listing, streams)
        skipped |= damaged
    files, looks = _files(folder, listing, streams)
    origins = {part: f"{place.relative_to(folder)}/" for part, place in listing.places.items()}
    if "test" not in files:
        files["train"], files["test"] = _split(files["train"])
        origins = {"test": "a fifth, by content"} | ({"train": origins["train"]} if listing.places["train"] != folder else {})
    scales = find_scales(looks)
    fingerprint = _fingerprint(files, listing.classes, _rules(looks, scales))
    places = _places(files)
    whole = Files(tuple(file for part in places for file in files[part]), listing.classes, places, side, scales)
    pixels, survey = keep_pixels(whole, cache_folder() / "data" / f"{fingerprint}-{side}", image_cache)
    subsets = {
        part: Subset(
            pixels[place.start : place.stop],
            torch.tensor([file.label for file in files[part]], dtype=torch.int64),
            torch.tensor([list(file.digest) for file in files[part]], dtype=torch.uint8),
        )
        for part, place in places.items()
    }
    return Dataset(
        name="folder",
        train=subsets["train"],
        test=subsets["test"],
        classes=listing.classes,
        fingerprint=fingerprint,
        mean=survey.mean,
        std=survey.std,
        val=subsets.get("val"),
        notes=tuple(
            map(
                _printable,
                (
                    *listing.notes,
                    *_skipped_note(folder, skipped),
                    *_notes_of_looks(folder, looks, scales),
                    *_notes_of_pixels(folder, whole, survey),
                ),
            )
        ),
        source=_printable(f"folder {folder} ({_kinds(files)})"),
        origins=origins,
        scales=scales,
    )


def _places(files: dict[str, list[File]]) -> dict[str, range]:
    """The places of each part when the parts follow each other in the order of their names."""
    places, start = {}, 0
    for part in sorted(files):
        places[part] = range(start, start + len(files[part]))
        start = places[part].stop
    return places


def _files(folder: Path, listing: Listing, streams: bool) -> tuple[dict[str, list[File]], dict[str, Look]]:
    """The files of every part in canonical order, and what each holds, by path."""
    labels = {path: label for entries in listing.parts.values() for path, label in entries}

    def read(path: str) -> Row:
        content = _content(path)
        own = look(content)
        return [content_digest(listing.classes[labels[path]], content).hex(), *(astuple(own) if own != Look() else ())]

    paths = list(labels)
    rows = read_changed(folder, paths, read, f"decoder {DECODER}") if streams else read_all(paths, read)
    rows_by_path = dict(zip(paths, rows, strict=True))
    files = {
        part: sorted((File(path, label, bytes.fromhex(rows_by_path[path][0])) for path, label in entries), key=lambda file: file.digest)
        for part, entries in listing.parts.items()
    }
    return files, {path: Look(*row[1:]) for path, row in rows_by_path.items()}


def _readable(folder: Path, listing: Listing, streams: bool) -> tuple[Listing, dict[str, str]]:
    """The listing without the files that cannot be decoded, and these with the reason; InputError for a class of which none is left."""

    def read(path: str) -> Row:
        try:
            return [fault(_content(path))]
        except InputError as error:
            return [str(error)]

    paths = [path for entries in listing.parts.values() for path, _ in entries]
    rows = read_changed(folder, paths, read, f"faults {DECODER}") if streams else read_all(paths, read)
    damaged = {path: why for path, (why,) in zip(paths, rows, strict=True) if why is not None}
    parts = {part: [(path, label) for path, label in entries if path not in damaged] for part, entries in listing.parts.items()}
    empty = [
        f"data: {listing.places[part]}: none of the images of {name} can be read"
        for part, entries in parts.items()
        for label, name in enumerate(listing.classes)
        if label not in {number for _, number in entries}
    ]
    if empty:
        raise InputError(*empty)
    return replace(listing, parts=parts), damaged


def _kinds(files: Mapping[str, Sequence[File]]) -> str:
    """How many files of each ending are read, the commonest first."""
    counts = Counter(Path(file.path).suffix.lower() for of_part in files.values() for file in of_part)
    return ", ".join(f"{number:,} {ending}" for ending, number in counts.most_common())


def _skipped_note(folder: Path, skipped: Mapping[str, str]) -> list[str]:
    """The files that could not be read, counted and listed."""
    if not skipped:
        return []
    names = [f"{_short(folder, path)} ({why})" for path, why in sorted(skipped.items())]
    more = f"; and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return [f"skipped {number_of(len(names), 'unreadable file')}: {'; '.join(names[:LISTED])}{more}"]


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"data: {path}: cannot be read ({error.strerror})") from error


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


def _rules(looks: Mapping[str, Look], scales: Mapping[str, float]) -> str:
    """How files are decoded that are more than plain 8-bit pixels, or 16-bit ones of the whole range; part of what they are."""
    unusual = {kind: scale for kind, scale in sorted(scales.items()) if kind != COLOUR_16 and (kind, scale) != ("16-bit", RANGES["16-bit"])}
    return f"{unusual or ''}{'on white' if any(one.transparent for one in looks.values()) else ''}"


def _fingerprint(files: dict[str, list[File]], classes: Sequence[str], rules: str) -> str:
    digest = hashlib.blake2b(repr(tuple(classes)).encode("utf-8", "surrogateescape"), digest_size=16)
    for name in sorted(files):
        digest.update(f"{name} {len(files[name])}".encode())
        for file in files[name]:
            digest.update(file.digest)
    if rules:
        digest.update(rules.encode())
    return digest.hexdigest()


def _notes_of_looks(folder: Path, looks: Mapping[str, Look], scales: Mapping[str, float]) -> list[str]:
    """Notes on files that hold other than plain 8-bit pixels, and how they are read."""
    groups: dict[str, list[str]] = {}
    for path, one in sorted(looks.items()):
        if one.kind == COLOUR_16:
            groups.setdefault("read with the upper 8 of 16 bits per channel", []).append(path)
        elif one.kind == FLOAT:
            groups.setdefault(f"grey floats, read as {'shares of 1' if scales[FLOAT] < 256 else 'levels up to 255'}", []).append(path)
        elif one.kind and scales[one.kind] < RANGES[one.kind]:
            groups.setdefault(
                f"grey values of {one.kind.replace('-', ' ')}s, read as 0 to {scales[one.kind]:.0f}, their largest value", []
            ).append(path)
        if one.transparent:
            groups.setdefault("partly transparent, drawn on white", []).append(path)
        if one.animated:
            groups.setdefault("of several frames, only the first is read", []).append(path)
    return [f"{words}: {number_of(len(paths), 'image')} ({_few(folder, paths)})" for words, paths in groups.items()]


def _notes_of_pixels(folder: Path, files: Files, survey: Survey) -> list[str]:
    """Notes on images of a single colour, and on images that occur twice."""

    def name(place: int) -> str:
        return _short(folder, files.files[place].path)

    notes = survey.repeats.sentences(name)
    if count := sum(survey.plain.values()):
        sizes = Counter(file.label for file in files.files)
        whole = [files.classes[label] for label, number in sorted(survey.plain.items()) if number == sizes[label]]
        classes = f", all of {', '.join(whole[:2])}{' and others' if len(whole) > 2 else ''}" if whole else ""
        notes.append(f"of one colour: {number_of(count, 'image')}{classes} ({', '.join(map(name, survey.plain_places))})")
    return notes


def _few(folder: Path, paths: Sequence[str]) -> str:
    return ", ".join(_short(folder, path) for path in paths[:2]) + (", ..." if len(paths) > 2 else "")


def _short(folder: Path, path: str) -> str:
    return str(Path(path).relative_to(folder))


def _printable(text: str) -> str:
    """Text without the bytes of names that are not UTF-8."""
    return text.encode("utf-8", "replace").decode()
