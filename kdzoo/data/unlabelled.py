"""Images without labels that a student is taught on: a folder of them, or the training images of another data set."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from kdzoo.data.dataset import Array, Dataset, LazyImages, Pixels, Subset, as_lazy
from kdzoo.data.files import IN_MEMORY_BYTES
from kdzoo.data.known import folder_of, no_such_transfer_folder
from kdzoo.data.pixels import UNREADABLE, Look, decode, find_scales, look, reason_of
from kdzoo.data.preprocess import Scales, upright_rgb
from kdzoo.data.sources import load
from kdzoo.data.walk import Walk
from kdzoo.errors import InputError
from kdzoo.tasks.targets import no_targets
from kdzoo.text import number_of

SHOWN = 3
"""files that a message names"""


@dataclass(frozen=True)
class ImageFormat:
    """The format that images must have to be used beside those of a data set.

    shape: channels, height, width. from_files: whether the data set's own images are decoded from files to squares of that
    side, as others then are too; else they have to have that size. scales: of deep grey values, as `Dataset.scales`.
    """

    shape: tuple[int, int, int]
    from_files: bool
    scales: tuple[tuple[str, float], ...]
    maps: bool = False

    @staticmethod
    def those_of(dataset: Dataset) -> ImageFormat:
        return ImageFormat(
            (dataset.channels, dataset.height, dataset.width),
            dataset.name == "folder",
            tuple(sorted(dataset.scales.items())),
            dataset.holds_maps,
        )

    def __str__(self) -> str:
        channels, height, width = self.shape
        if self.maps:
            return f"{height}x{width} float32 maps"
        return f"{height}x{width} {'grey' if channels == 1 else 'colour'}"


@dataclass(frozen=True)
class UnlabelledImages:
    """Images in the order of their keys, whatever order their files had.

    keys: a digest of each image's pixels, (N, 16) uint8. fingerprint: of all keys. notes: what was passed over, a sentence each.
    """

    pixels: Pixels
    keys: Tensor
    fingerprint: str
    source: str
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.keys)


def load_unlabelled(
    request: str, like: ImageFormat, *, root: Path | None, image_size: int | None, skip_unreadable: bool
) -> UnlabelledImages:
    """The images of `folder:PATH` or `images:PATH`, whatever sub-folders they are in, or the training images of a data set by name.

    Raises InputError for a folder without images, images that cannot be read (unless these are skipped), and images of
    another size than the data's.
    """
    if (folder := folder_of(request)) is not None:
        pixels, notes = _folder(folder, request, like, skip_unreadable=skip_unreadable)
    else:
        pixels, notes = _source(request, like, root, image_size), ()
    keys = pixel_keys(pixels)
    order = torch.from_numpy(np.lexsort(keys.numpy().T[::-1]))
    digest = hashlib.blake2b(f"{like.shape}".encode() + keys[order].numpy().tobytes(), digest_size=16)
    return UnlabelledImages(pixels[order], keys[order], digest.hexdigest(), request, notes)


def _source(request: str, like: ImageFormat, root: Path | None, image_size: int | None) -> Pixels:
    try:
        dataset = load(request, root=root, image_size=image_size)
    except InputError as error:
        raise InputError(*_of_transfer_data(error)) from error
    if ((other := ImageFormat.those_of(dataset)).shape, other.maps) != (like.shape, like.maps):
        raise InputError(f"transfer_data: {request} has images of {other}; expected {like}, as those of the data are")
    return dataset.train.images


def _of_transfer_data(error: InputError) -> list[str]:
    """The problems of a data set, as problems of the transfer data."""
    return [f"transfer_data: {problem.removeprefix('data: ')}" for problem in error.problems]


def _folder(folder: Path, request: str, like: ImageFormat, *, skip_unreadable: bool) -> tuple[Pixels, tuple[str, ...]]:
    if like.maps:
        raise InputError(f"transfer_data: {request}: holds image files, and the data are {like}; name a data set of such maps")
    if not folder.is_dir():
        raise InputError(no_such_transfer_folder(request))
    walk = Walk(folder)
    paths = walk.images_below(folder)
    channels, height, width = like.shape
    looks: dict[str, Look] = {}
    unreadable, other = dict(walk.unreadable), dict[str, str]()
    good: list[str] = []
    for path in paths:
        try:
            content = Path(path).read_bytes()
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                size = ImageOps.exif_transpose(image).size
        except UNREADABLE as error:
            unreadable[path] = reason_of(error)
            continue
        if not like.from_files and size != (width, height):
            other[path] = f"{size[1]}x{size[0]}"
            continue
        good.append(path)
        looks[str(Path(path).relative_to(folder))] = look(content)
    problems = _of_transfer_data(InputError(*walk.problems)) if walk.problems else []
    if unreadable and not skip_unreadable:
        problems.append(
            f"transfer_data: {number_of(len(unreadable), 'image file')} cannot be read: {_few(folder, unreadable)}; --skip-unreadable "
            "leaves such files out"
        )
    if other:
        problems.append(
            f"transfer_data: {len(other)} of {number_of(len(paths), 'image')} below {folder} have another size than the data's, "
            f"{height}x{width}: {_few(folder, other)}"
        )
    if not paths:
        problems.append(f"transfer_data: {request}: no image files")
    scales = dict(like.scales)
    try:
        scales = {**find_scales(looks), **scales}
    except InputError as error:
        problems += _of_transfer_data(error)
    if problems or not good:
        raise InputError(*(problems or [f"transfer_data: {request}: none of its image files can be read"]))
    read: Callable[[int], Array] = partial(_square, good, height, scales) if like.from_files else partial(_as_it_is, good, channels, scales)
    places = torch.arange(len(good))
    skipped = [f"transfer data: skipped {number_of(len(unreadable), 'unreadable file')}: {_few(folder, unreadable)}"] if unreadable else []
    notes = (*(f"transfer data: {text}" for text in walk.skipped.sentences()), *skipped)
    if len(good) * channels * height * width > IN_MEMORY_BYTES:
        return LazyImages(read, places, like.shape), notes
    return torch.from_numpy(np.stack([read(place) for place in range(len(good))])), notes


def _square(paths: Sequence[str], side: int, scales: Scales, place: int) -> Array:
    return decode(paths[place], side, scales)


def _as_it_is(paths: Sequence[str], channels: int, scales: Scales, place: int) -> Array:
    """The pixels of a file of the right size, (C, H, W), in grey or in colour; else as `decode` reads them."""
    with Image.open(paths[place]) as image:
        pixels = np.asarray(upright_rgb(image, scales).convert("L" if channels == 1 else "RGB"))
    return np.ascontiguousarray(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))


def _few(folder: Path, files: dict[str, str]) -> str:
    names = [f"{Path(path).relative_to(folder)} ({why})" for path, why in sorted(files.items())]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def pixel_keys(pixels: Pixels) -> Tensor:
    """A digest of the pixels of each image, (N, 16) uint8: equal for equal images, whatever their labels."""
    digests = [hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest() for image in _each(pixels)]
    return torch.from_numpy(np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 16).copy())


def _each(pixels: Pixels) -> Iterator[Array]:
    if isinstance(pixels, LazyImages):
        return (pixels.read(place) for place in pixels.places.tolist())
    return iter(pixels.cpu().numpy())


def in_common(images: Pixels, extra: UnlabelledImages) -> int:
    """How many of the unlabelled images are among these images, by their pixels."""
    keys = set(map(bytes, pixel_keys(images).numpy()))
    return sum(bytes(key) in keys for key in extra.keys.numpy())


def refuse_test_images(dataset: Dataset, extra: UnlabelledImages) -> None:
    """Raises InputError where some of the images are test images too, by their pixels: a student is not taught on these."""
    if count := in_common(dataset.test.images, extra):
        raise InputError(
            f"transfer_data: {count:,} of the {extra.count:,} images of {extra.source} are test images of {dataset.name} too; a student "
            "taught on them is not tested fairly: remove them"
        )


def append_unlabelled(first: Subset, extra: UnlabelledImages) -> Subset:
    """A part of the data, and behind it the images without labels."""
    targets = torch.cat([first.targets, no_targets(first.targets, extra.count)])
    keys = None if first.keys is None else torch.cat([first.keys, extra.keys])
    return Subset(_concatenate(first.images, extra.pixels), targets, keys)


def _concatenate(first: Pixels, second: Pixels) -> Pixels:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat([first, second])
    one, other = (part if isinstance(part, LazyImages) else as_lazy(part) for part in (first, second))
    return LazyImages(partial(_either, one, other), torch.arange(len(one.places) + len(other.places)), one.image)


def _either(one: LazyImages, other: LazyImages, place: int) -> Array:
    """The pixels at a place of two sets of images that follow each other."""
    part, at = (one, place) if place < len(one.places) else (other, place - len(one.places))
    return part.read(int(part.places[at]))
