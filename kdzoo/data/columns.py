"""Which columns of targets are learned: from words to a task, and a data set with the targets of that task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from kdzoo.data.class_names import same_classes
from kdzoo.data.dataset import ColumnNames, Dataset, Subset
from kdzoo.errors import InputError, repeated, unknown
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.multitask import learn_columns
from kdzoo.tasks.task import TargetColumn, Task


def task_for(dataset: Dataset, words: Sequence[str]) -> Task:
    """The task of the columns that are named, each perhaps with a weight (`0.7*digit`); the first is the primary one.

    Without a word, and for the set's first column alone, it is the set's own task. Raises InputError for columns that the set does
    not have, for one named twice, and for weights of some and not of others.
    """
    if not words:
        return dataset.task
    if not dataset.columns:
        raise InputError(f"columns: {dataset.name} has one column of targets; leave columns out")
    names = [word.rpartition("*")[2].strip() for word in words]
    known = {column.name: column for column in dataset.columns}
    problems = [unknown("columns", name, known) for name in names if name not in known]
    problems += [f"columns: {name} is named twice" for name in repeated(names)]
    if problems:
        raise InputError(*problems)
    if names == [dataset.columns[0].name]:
        return CLASSIFICATION
    weights = _weights(words)
    return learn_columns(tuple(TargetColumn(name, len(known[name].classes), weight) for name, weight in zip(names, weights, strict=True)))


def _weights(words: Sequence[str]) -> list[float]:
    """The weight of each column: those given, else one over their number."""
    texts = [word.rpartition("*")[0].strip() for word in words]
    if not any(texts):
        return [1 / len(words)] * len(words)
    if not all(texts):
        raise InputError(f"columns: expected a weight of every column or of none, got {','.join(words)}")
    try:
        weights = [float(text) for text in texts]
    except ValueError:
        weights = [math.nan]
    if any(not math.isfinite(weight) or weight <= 0 for weight in weights):
        raise InputError(f"columns: expected weights > 0, such as 0.7*{words[0].rpartition('*')[2]}, got {','.join(words)}")
    return weights


def learn(dataset: Dataset, task: Task) -> Dataset:
    """The data set with the targets of a task of its columns; its first column for a task that names none."""
    if task is dataset.task or not (dataset.columns or task.columns):
        return replace(dataset, task=task) if task.of_features else dataset
    places = [_place(dataset, column) for column in task.columns] or [0]
    return replace(
        dataset,
        train=_with_targets(dataset.train, places),
        val=None if dataset.val is None else _with_targets(dataset.val, places),
        test=_with_targets(dataset.test, places),
        classes=dataset.columns[places[0]].classes,
        task=task,
    )


def _place(dataset: Dataset, column: TargetColumn) -> int:
    place = next((number for number, one in enumerate(dataset.columns) if one.name == column.name), None)
    if place is None or len(dataset.columns[place].classes) != column.classes:
        there = ", ".join(f"{one.name} with {len(one.classes)} classes" for one in dataset.columns) or "one column without a name"
        raise InputError(f"columns: {dataset.name} has no column {column.name} with {column.classes} classes; it has {there}")
    return place


def _with_targets(part: Subset, places: Sequence[int]) -> Subset:
    assert part.columns is not None
    return replace(part, targets=part.columns[:, places[0] if len(places) == 1 else places])


def learned_columns(dataset: Dataset) -> tuple[ColumnNames, ...]:
    """The columns that a data set's task learns, with their classes; one without a name for a set of one column."""
    if not dataset.task.columns:
        return (dataset.columns[0] if dataset.columns else ColumnNames("", dataset.classes),)
    return tuple(next(one for one in dataset.columns if one.name == column.name) for column in dataset.task.columns)


def columns_scored(dataset: Dataset, classes: int, names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Which of several columns a network scores that was made for so many classes, of these names where they are known.

    Its scores are those of all columns, or of a single one: the one whose classes it names, else the only one with as many.
    None where that is not one.
    """
    columns = learned_columns(dataset)
    everything = [name for column in columns for name in column.classes]
    alike = [column.name for column in columns if len(column.classes) == classes]
    if names is not None:
        alike = [column.name for column in columns if same_classes(tuple(names), column.classes)]
        if same_classes(tuple(names), tuple(everything)):
            return tuple(column.name for column in columns)
    elif len(everything) == classes and not alike:
        return tuple(column.name for column in columns)
    return (alike[0],) if len(alike) == 1 else None
