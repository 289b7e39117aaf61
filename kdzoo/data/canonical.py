"""Arrays of images and labels to a data set in canonical order: sorted by content, fingerprinted, channels first."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdzoo.data.dataset import ColumnNames, Dataset, Subset, statistics
from kdzoo.data.labels import Labels, map_labels, read_measurements
from kdzoo.data.repeats import find_repeats
from kdzoo.errors import InputError, collect_problems
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.multitask import NAME
from kdzoo.tasks.task import Task
from kdzoo.text import number_of

Array = NDArray[Any]


@dataclass(frozen=True)
class Raw:
    """What a source reads: images (N, H, W[, C]) uint8 and labels (N,) of train and test, and the classes' names.

    Maps of something else than light, such as of sound, are float32 from 0 to 255 in place of images.

    Labels are numbers from 0 or names where `classes` names them; without names they say themselves which classes there
    are (`labels.map_labels`). Of a task of measured numbers they are these, and `classes` names the one output. notes: what was
    passed over in reading, a sentence each. task: what is learned of the labels. further: more columns of labels of the same
    samples, of which a bench can learn several (`--columns`); column: the name of the first, which alone is part of what a sample is
    known by. of_text: whether the rows are the bytes of texts, (N, 1, W), zeros after each (`texts`).
    """

    train: tuple[Array, Any]
    test: tuple[Array, Any]
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    task: Task = CLASSIFICATION
    further: tuple[FurtherColumn, ...] = ()
    column: str = "class"
    of_text: bool = False


@dataclass(frozen=True)
class FurtherColumn:
    """A further column of labels, of train and test, and the names of its classes; labels are as those of `Raw`."""

    name: str
    train: Any
    test: Any
    classes: tuple[str, ...] = ()


STATISTICS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""mean and standard deviation of the train images, as the literature rounds them"""


def make_dataset(name: str, raw: Raw, source: str = "") -> Dataset:
    """The same images whatever order their files had: sorted by content, fingerprinted, channels first.

    Raises InputError for arrays that are not images, or labels that are not what the task learns.
    """
    arrays = {part: _as_images(of_part[0], part) for part, of_part in (("train", raw.train), ("test", raw.test))}
    read = map_labels if raw.task.of_classes else read_measurements
    labels = read(raw.train[1], raw.test[1], raw.classes)
    numbers = {"train": labels.train, "test": labels.test}
    problems = [
        f"data: expected as many {part} labels as images, got {len(numbers[part])} and {len(images)}"
        for part, images in arrays.items()
        if len(images) != len(numbers[part])
    ]
    if arrays["train"].dtype != arrays["test"].dtype:
        problems.append(
            f"data: expected images or maps in both parts, got {arrays['train'].dtype} in train and {arrays['test'].dtype} in test"
        )
    if arrays["train"].shape[1:] != arrays["test"].shape[1:]:
        shapes = " and ".join(f"{part} images of {images.shape[1:]}" for part, images in arrays.items())
        problems.append(f"data: expected one shape of all images (H, W, C), got {shapes}")
    further = _read_further(raw, {part: len(images) for part, images in arrays.items()}, problems)
    if problems:
        raise InputError(*problems)
    digest = hashlib.blake2b(f"{len(labels.classes)} classes".encode(), digest_size=16)
    parts = {part: _sort(images, numbers[part]) for part, images in arrays.items()}
    for part in parts.values():
        digest.update(len(part.digests).to_bytes(8, "big"))
        digest.update(part.digests.tobytes())
    train, test = parts["train"], parts["test"]
    mean, std = ((0.0,), (1.0,)) if raw.of_text else STATISTICS.get(name) or statistics(train.pixels)
    plain = [] if raw.of_text else _one_colour_notes(train, test)
    columns = (ColumnNames(raw.column, labels.classes), *(ColumnNames(name, one.classes) for name, one in further.items()))
    return Dataset(
        name=name,
        train=Subset(train.pixels, train.targets, keys_of(train.digests), _columns(train, [one.train for one in further.values()])),
        test=Subset(test.pixels, test.targets, keys_of(test.digests), _columns(test, [one.test for one in further.values()])),
        classes=labels.classes,
        fingerprint=digest.hexdigest(),
        mean=mean,
        std=std,
        notes=(*raw.notes, *labels.notes, *_repeat_notes(train, test, "text" if raw.of_text else "image"), *plain),
        source=source,
        task=raw.task,
        columns=columns if further else (),
        holds_texts=raw.of_text,
    )


def _read_further(raw: Raw, counts: Mapping[str, int], problems: list[str]) -> dict[str, Labels]:
    """The further columns of labels by name; what is wrong with them is added to `problems`."""
    columns: dict[str, Labels] = {}
    for name in (raw.column, *(one.name for one in raw.further)):
        if raw.further and re.fullmatch(NAME, name) is None:
            problems.append(f"data: column {name!r}: expected a name of letters, digits and _, which begins with a letter")
    if raw.further and not raw.task.of_classes:
        problems.append(f"data: several columns need a task of classes, this one is {raw.task.name}")
        return {}
    for column in raw.further:
        before = len(problems)
        with collect_problems(problems):
            own = map_labels(column.train, column.test, column.classes)
            columns[column.name] = own
            problems += [
                f"expected as many {part} labels as images, got {len(labels)} and {counts[part]}"
                for part, labels in (("train", own.train), ("test", own.test))
                if len(labels) != counts[part]
            ]
        problems[before:] = [f"data: column {column.name}: {text.removeprefix('data: ')}" for text in problems[before:]]
    if len(columns) < len(raw.further) or raw.column in columns:
        problems.extend([] if problems else ["data: two columns have the same name"])
    return columns


def _columns(part: _Part, further: Sequence[Array]) -> Tensor | None:
    """All columns of a part's targets in canonical order, (N, C) int64; None where there is one."""
    if not further:
        return None
    return torch.stack([part.targets, *(torch.from_numpy(labels[part.places]) for labels in further)], dim=1)


def keys_of(digests: Array) -> Tensor:
    """Digests of 16 bytes each as the keys of a subset, (N, 16) uint8."""
    return torch.from_numpy(np.ascontiguousarray(digests).view(np.uint8).reshape(len(digests), 16).copy())


def _as_images(images: Any, part: str) -> Array:
    """Images, or float32 maps, as (N, H, W, C); InputError for an array that holds neither."""
    array = np.asarray(images)
    if array.dtype not in (np.uint8, np.float32):
        raise InputError(f"data: expected uint8 images, or float32 maps, in 0..255, got {array.dtype} in {part}")
    if array.dtype == np.float32 and array.size and not (array.min() >= 0 and array.max() <= 255):  # NaN is not either
        raise InputError(f"data: expected float32 maps from 0 to 255, got {array.min():g} to {array.max():g} in {part}")
    array = array[..., None] if array.ndim == 3 else array
    if array.ndim != 4 or array.shape[3] not in (1, 3):
        raise InputError(f"data: expected {part} images (N, H, W) or (N, H, W, C) of 1 or 3 channels, got the shape {np.shape(images)}")
    return array


@dataclass(frozen=True)
class _Part:
    """A part in canonical order.

    pixels (N, C, H, W). digests: of pixels and label; keys: of pixels alone, (N, 2) each. places: in the source.
    """

    pixels: Tensor
    targets: Tensor
    digests: Array
    keys: Array
    places: Array


def _sort(images: Array, labels: Array) -> _Part:
    """Sort images (N, H, W, C) and labels by their digests."""
    flat = np.ascontiguousarray(images).reshape(len(images), -1)
    digests, keys = [], []
    whole = labels.dtype == np.int64
    for row, label in zip(flat, labels, strict=True):
        pixels = hashlib.blake2b(row.data, digest_size=16)
        keys.append(pixels.digest())
        pixels.update(int(label).to_bytes(8, "big") if whole else np.float32(label).tobytes())
        digests.append(pixels.digest())
    values = np.frombuffer(b"".join(digests), dtype=">u8").reshape(-1, 2)
    order = np.lexsort((values[:, 1], values[:, 0]))
    return _Part(
        pixels=torch.from_numpy(np.ascontiguousarray(images[order].transpose(0, 3, 1, 2))),
        targets=torch.from_numpy(labels[order]),
        digests=values[order],
        keys=np.frombuffer(b"".join(keys), dtype=">u8").reshape(-1, 2)[order],
        places=order,
    )


def _repeat_notes(train: _Part, test: _Part, noun: str) -> list[str]:
    """Notes on samples that occur twice, named by their number in the source."""
    count = len(train.keys)
    places = {"train": range(count), "test": range(count, count + len(test.keys))}

    def name(place: int) -> str:
        return f"train {train.places[place]}" if place < count else f"test {test.places[place - count]}"

    keys = np.concatenate([train.keys, test.keys])
    labels = torch.cat([train.targets, test.targets]).numpy()
    return find_repeats(keys, labels, list(places.items())).sentences(name, noun)


def _one_colour_notes(train: _Part, test: _Part) -> list[str]:
    """A note on images of a single colour."""
    examples, count = [], 0
    for name, part in (("train", train), ("test", test)):
        flat = part.pixels.flatten(2)
        plain = (flat.amax(2) == flat.amin(2)).all(1).nonzero().flatten().tolist()
        count += len(plain)
        examples += [f"{name} {part.places[place]}" for place in plain[:2]]
    return [f"of one colour: {number_of(count, 'image')} ({', '.join(examples[:2])})"] if count else []
