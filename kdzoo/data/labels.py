"""Labels as they come, numbers or names in several forms, to class numbers with names, or to measurements: mapped in words, or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdzoo.errors import InputError, did_you_mean, repeated
from kdzoo.text import are, number_of

Array = NDArray[Any]
Numbers = NDArray[np.int64]
SHOWN = 4
"""classes that a sentence names"""


@dataclass(frozen=True)
class Labels:
    """Class numbers (N,) int64 of train and test, the classes' names, and notes on how labels became numbers.

    Of measurements the numbers themselves, (N,) float32, and the name of what is measured.
    """

    train: Array
    test: Array
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def map_labels(train: Any, test: Any, names: Sequence[str] = ()) -> Labels:
    """The labels of train and test, (N,), (N, 1) or one-hot (N, K), as class numbers.

    With names, numbers count them from 0 and texts are sought among them. Without, the distinct labels of the train part
    are the classes: numbers in their order, texts in that of the alphabet. Raises InputError for labels that name no
    class (fractions, NaN, negative ones, more than one an image), for a class of the test part alone, and for fewer
    than two classes.
    """
    notes: list[str] = []
    parts = {part: _flat(labels, part, notes) for part, labels in (("train", train), ("test", test))}
    if empty := [part for part, labels in parts.items() if not len(labels)]:
        raise InputError(*[f"data: the {part} part has no images" for part in empty])
    if len({labels.dtype.kind for labels in parts.values()}) > 1:
        raise InputError(f"data: expected labels of one kind, got {parts['train'].dtype} in train and {parts['test'].dtype} in test")
    numbers_by_label = _places_of_names(parts, names) if names else _distinct(parts, notes)
    if len(numbers_by_label) < 2:
        raise InputError(f"data: expected two or more classes, found {_few(numbers_by_label) or 'none'}")
    numbers = {part: np.array([numbers_by_label[label] for label in labels.tolist()], dtype=np.int64) for part, labels in parts.items()}
    classes = tuple(names) or tuple(map(str, numbers_by_label))
    return Labels(numbers["train"], numbers["test"], classes, (*notes, *_absent(numbers, classes)))


def read_measurements(train: Any, test: Any, names: Sequence[str] = ()) -> Labels:
    """The labels of train and test, (N,) or (N, 1), as measured numbers, all finite; InputError for any others."""
    parts = {part: np.asarray(_array(labels, part)) for part, labels in (("train", train), ("test", test))}
    problems = []
    for part, values in parts.items():
        flat = values.reshape(len(values), -1)
        if values.dtype.kind not in "biuf" or flat.shape[1:] != (1,) or not len(values):
            problems.append(f"data: expected {part} labels (N,), one number per image, got {values.dtype} of the shape {values.shape}")
        elif len(wrong := np.flatnonzero(~np.isfinite(flat[:, 0].astype(np.float64)))):
            problems.append(f"data: {are(len(wrong), f'{part} label')} no finite number (the first is number {wrong[0]})")
    if problems:
        raise InputError(*problems)
    numbers = {part: values.reshape(-1).astype(np.float32) for part, values in parts.items()}
    return Labels(numbers["train"], numbers["test"], tuple(names) or ("value",))


def _flat(labels: Any, part: str, notes: list[str]) -> Array:
    """Labels as (N,) int64 or text."""
    array = _array(labels, part)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "biuf":
        array = _places_of_ones(array, part)
        notes.append(f"one-hot labels of {part} are converted to class numbers")
    if array.ndim != 1:
        raise InputError(f"data: {part} labels have the shape {array.shape}; expected (N,), one label per image, or one-hot (N, classes)")
    return _texts(array, part) if array.dtype.kind == "U" else _whole_numbers(array, part)


def _array(labels: Any, part: str) -> Array:
    """Labels of a list, an array, a tensor or a table's column as an array of numbers or of text."""
    try:
        array = np.asarray(labels.detach().cpu().numpy() if hasattr(labels, "detach") else labels)
        if array.dtype.kind == "O":
            texts = [isinstance(label, str) for label in array.flat]
            array = array.astype(str) if texts and all(texts) else array.astype(np.float64)
        if array.dtype.kind == "S":
            array = np.char.decode(array, "utf-8")
    except (TypeError, ValueError) as error:
        raise InputError(f"data: {part} labels are neither numbers nor names, one per image ({error})") from error
    if array.dtype.kind == "T":
        array = array.astype(str)
    if array.dtype.kind not in "biufU":
        raise InputError(f"data: {part} labels are {array.dtype}; expected whole numbers or names")
    return array


def _places_of_ones(array: Array, part: str) -> Array:
    """The class of each row of one-hot labels; InputError where a row names none or several."""
    ones = (array == 1).sum(1)
    wrong = np.flatnonzero((ones != 1) | ((array != 0) & (array != 1)).any(1))
    if len(wrong):
        row = int(wrong[0])
        values = ", ".join(f"{value:g}" for value in array[row][:8].astype(float)) + (", ..." if array.shape[1] > 8 else "")
        raise InputError(
            f"data: {part} labels have the shape {array.shape} and {are(len(wrong), 'row')} not one-hot "
            f"(row {row}: {values}); expected one class per image"
        )
    return np.asarray(array.argmax(1))


def _texts(array: Array, part: str) -> Array:
    if nameless := [index for index, label in enumerate(array.tolist()) if not label.strip()]:
        count = are(len(nameless), f"{part} label")
        raise InputError(f"data: {count} empty (the first is number {nameless[0]}); expected a class's name")
    return array


def _whole_numbers(array: Array, part: str) -> Array:
    """Labels as int64; InputError for fractions, NaN, infinities and negative numbers."""
    numbers = array.astype(np.float64) if array.dtype.kind == "f" else array
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero(~np.isfinite(numbers) | (numbers != np.floor(numbers)) | (np.abs(numbers) > 2**53))
    if array.dtype.kind == "f" and len(wrong):
        raise InputError(
            f"data: {are(len(wrong), f'{part} label')} not whole (number {wrong[0]} is {numbers[wrong[0]]:g}); "
            "expected 0, 1, 2, ... or names"
        )
    if len(negative := np.flatnonzero(numbers < 0)):
        raise InputError(
            f"data: {are(len(negative), f'{part} label')} negative (number {negative[0]} is {int(numbers[negative[0]])}); expected 0, 1, "
            "2, ... or names; every image of a data set needs a label (--label-fraction hides some in training)"
        )
    return np.asarray(array.astype(np.int64))


def _places_of_names(parts: Mapping[str, Array], names: Sequence[str]) -> dict[Any, int]:
    """What each label counts as where the classes have names; InputError for labels beyond them."""
    if twice := sorted(repeated(names)):
        raise InputError(f"data: two classes have the same name: {', '.join(twice)}")
    text = parts["train"].dtype.kind == "U"
    numbers_by_label = {name: number for number, name in enumerate(names)} if text else {number: number for number in range(len(names))}
    problems = []
    for part, labels in parts.items():
        values, counts = np.unique(labels, return_counts=True)
        unknown = {value: int(count) for value, count in zip(values.tolist(), counts, strict=True) if value not in numbers_by_label}
        if unknown:
            meant = f"one of the {len(names)} names" if text else f"0 to {len(names) - 1}, since there are {len(names)} names"
            near = did_you_mean(str(next(iter(unknown))), names) if text else ""
            count = are(sum(unknown.values()), f"{part} label")
            problems.append(f"data: {count} not among the class names: {_few(unknown)}; expected {meant}{near}")
    if problems:
        raise InputError(*problems)
    return numbers_by_label


def _distinct(parts: Mapping[str, Array], notes: list[str]) -> dict[Any, int]:
    """What each label counts as where only the train part says which there are; InputError for a class of the test part alone."""
    values = np.unique(parts["train"]).tolist()
    alone = np.setdiff1d(parts["test"], parts["train"])
    if len(alone):
        count = int(np.isin(parts["test"], alone).sum())
        raise InputError(
            f"data: {are(count, 'test image')} of {number_of(len(alone), 'class', 'classes')} without a training image "
            f"({_few(alone.tolist())}), which no network could learn; remove these images or add training images"
        )
    if values != list(range(len(values))):
        what = "names" if parts["train"].dtype.kind == "U" else "labels"
        notes.append(f"the {what} {_few(values)} are the {len(values)} classes 0 to {len(values) - 1}, in this order")
    return {value: number for number, value in enumerate(values)}


def _absent(numbers: Mapping[str, Numbers], classes: Sequence[str]) -> list[str]:
    """Notes on classes of which a part has no image."""
    notes = []
    for part, labels in numbers.items():
        there = set(labels.tolist())
        if absent := [name for number, name in enumerate(classes) if number not in there]:
            noun = "training" if part == "train" else part
            notes.append(f"without a {noun} image: {len(absent)} of {len(classes)} classes ({_few(absent)})")
    return notes


def _few(values: Any) -> str:
    """The first of some values, and the last where there are many."""
    texts = list(map(str, values))
    return ", ".join(texts) if len(texts) <= SHOWN else f"{', '.join(texts[: SHOWN - 1])}, ... {texts[-1]}"
