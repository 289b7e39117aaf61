"""What differs between the protocol of a row and that of a published number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kdzoo.data.known import DATA
from kdzoo.suite.report.blocks import Standing
from kdzoo.suite.report.published import IMAGENET, Published
from kdzoo.suite.report.records import Record, taught_on
from kdzoo.suite.report.selection import at_published_coefficients

IMAGENET_CLASSES = 1000


TEACHERS_ALIKE = 0.5
"""points by which two teachers' accuracies may differ without a mark"""


BEST_EPOCH = "the published number is of the best epoch on the test set, ours of the last one"


WEIGHTS = "ours stands at other weights than the method was published with (column setting)"


@dataclass(frozen=True)
class Mark:
    """What differs between two protocols: a word for the kind of difference, and both sides."""

    word: str
    text: str

    def __str__(self) -> str:
        return f"{self.word}: {self.text}"


def teacher_mean(standing: Standing) -> float | None:
    """The headline of a row's teachers on the test images, the mean over its runs; None where it is not known."""
    teachers = [(record.result or {}).get("teacher") or {} for record in standing.done]
    known = [teacher["test"][standing.metric.name] for teacher in teachers if teacher.get("test")]
    return float(np.mean(known)) if known else None


def marks_of(standing: Standing, number: Published) -> tuple[Mark, ...]:
    """What differs between the protocols of a row and of a published number, as far as both are known."""
    record = standing.record
    return tuple(
        mark
        for mark in (
            _pixels(record, number),
            _epochs(record, number),
            Mark("best epoch", BEST_EPOCH) if number.epoch == "best" else None,
            _images(record, number),
            _seeds(len(standing.done), number),
            _teacher(standing, number),
            None if at_published_coefficients(record) else Mark("weights", WEIGHTS),
            _hyperparameters(record),
            Mark("copied", f"{number.table} copied the number from an earlier table") if number.run_by == "copied" else None,
            Mark("unstated", f"{number.table} does not state {_listed(number.unstated)}") if number.unstated else None,
        )
        if mark is not None
    )


def _pixels(record: Record, number: Published) -> Mark | None:
    """Other images: a set at half its side, or a folder that may not be ImageNet."""
    ours, theirs = (known.shape if (known := DATA.find(name)) is not None else None for name in (record.run.data.name, number.data))
    if number.data == IMAGENET:
        return Mark("data", f"a folder of {IMAGENET_CLASSES:,} classes here, ImageNet there")
    if ours is None or theirs is None or ours == theirs:
        return None
    return Mark("pixels", f"{ours[1]}x{ours[2]} here, {theirs[1]}x{theirs[2]} there")


def _epochs(record: Record, number: Published) -> Mark | None:
    epochs = record.run.recipe.epochs
    return None if number.epochs in (None, epochs) else Mark("epochs", f"{epochs} here, {number.epochs} there")


def _images(record: Record, number: Published) -> Mark | None:
    """Other training images than the whole set, on which published numbers are trained."""
    data = record.run.data
    whole = known.train if (known := DATA.find(data.name)) is not None else None
    if data.transfer is not None:
        return Mark("images", f"taught on {taught_on(record)} here, on the whole training set there")
    if data.limit is None and not data.val_fraction and data.label_fraction == 1:
        return None
    share = (1 - data.val_fraction) * data.label_fraction
    if whole is None:
        return Mark("images", f"{100 * share:g} % of the training images here, all there")
    count = round((data.limit or whole) * share)
    return Mark("images", f"{count:,} training images here, {whole:,} there")


def _hyperparameters(record: Record) -> Mark | None:
    """Other temperatures, powers and so on than the methods declare, or than the recipe has for this pair."""
    methods = record.about.get("methods", {})
    others = [
        f"{term.method}.{name} {value:g} here, {default:g} declared"
        if all(isinstance(one, int | float) and not isinstance(one, bool) for one in (value, default))
        else f"{term.method}.{name} {value} here, {default} declared"
        for term in record.run.objective.terms
        for name, value in term.hyperparameters.items()
        if value != (default := methods.get(term.method, {}).get("declared", {}).get(name, value))
    ]
    return Mark("hyper-parameters", ", ".join(others)) if others else None


def _seeds(n: int, number: Published) -> Mark | None:
    sides = [*(["here"] if n == 1 else []), *(["there"] if number.seeds == 1 else [])]
    return Mark("one seed", f"{' and '.join(sides)}") if sides else None


def _teacher(standing: Standing, number: Published) -> Mark | None:
    ours = teacher_mean(standing)
    if ours is None or number.teacher is None or abs(100 * ours - number.teacher) <= TEACHERS_ALIKE:
        return None
    return Mark("teacher", f"{100 * ours:.2f} % here, {number.teacher:.2f} % there")


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
