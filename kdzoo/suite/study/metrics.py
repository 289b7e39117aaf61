"""The numbers of a finished run, or of a step, by the names that a study has for them. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kdzoo.errors import InputError
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.known import TASKS
from kdzoo.tasks.task import Metric

TOP1 = CLASSIFICATION.headline.name
DERIVED = ("errors", "error_rate")
"""of a classification: the number of misclassified test images, and 100 minus its headline"""
OF_A_CLASS = ("errors", "recall")
"""of the test images of one class, such as `recall.3`, the share of its images that are named rightly"""

TEST = ("last", "test")


def metric_names() -> tuple[str, ...]:
    """What a study may ask for of all test images: the metrics of every task, and what is derived of them."""
    return (*_metrics(), *DERIVED)


def _metrics() -> dict[str, Metric]:
    return {metric.name: metric for task in TASKS.values() for metric in task.metrics}


def value_of(result: Mapping[str, Any], metric: str) -> float:
    """A number of a run's result, shares in per cent; raises InputError where the run does not have it.

    metric: one of `metric_names`, one of a class, or the place of a number, such as `best.test.top1`.
    """
    test = _at(result, TEST)
    name, _, label = metric.partition(".")
    value: Any
    if metric == "errors":
        value = None if _at(test, (TOP1,)) is None else float(round((1 - test[TOP1]) * test["n"]))
    elif metric == "error_rate":
        value = None if _at(test, (TOP1,)) is None else 100 * (1 - float(test[TOP1]))
    elif name in OF_A_CLASS and label.isdecimal():
        value = _of_a_class(test, name, label)
    else:
        path = metric.split(".") if "." in metric else [*TEST, metric]
        value = _at(result, path)
        known_metric = _metrics().get(path[-1])
        if known_metric is not None and isinstance(value, int | float):
            value = known_metric.factor * float(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"metric {metric}: not a number of these runs")
    return float(value)


def _of_a_class(test: Any, name: str, label: str) -> float | None:
    """The errors of a class, or the per cent of its images that are right; None where they were not counted."""
    errors, images = _at(test, ("errors_per_class", label)), _at(test, ("images_per_class", label))
    if errors is None or not images:
        return None
    return float(errors) if name == "errors" else 100 * (1 - errors / images)


def _at(value: Any, path: Iterable[str]) -> Any:
    """What lies at a place in nested mappings and lists; None where nothing does."""
    for key in path:
        if isinstance(value, list):
            value = value[int(key)] if key.isdecimal() and int(key) < len(value) else None
        else:
            value = value.get(key) if isinstance(value, Mapping) else None
    return value


def is_count(metric: str) -> bool:
    """Whether a metric counts images."""
    return metric.partition(".")[0] == "errors" or "errors_per_class" in metric.split(".")


def lower_is_better(metric: str) -> bool:
    """Whether less of a metric is better."""
    last = metric.split(".")[-1]
    known_metric = _metrics().get(last)
    return is_count(metric) or last in DERIVED or (known_metric is not None and known_metric.better == "lower")


def resolution_of(results: Iterable[Mapping[str, Any]], metric: str) -> float:
    """What one image makes of a metric; 0 where it is not of whole images. Equal values differ by less than that."""
    name, _, label = metric.partition(".")
    if is_count(metric):
        return 1.0
    last = metric.split(".")[-1]
    if name == "recall" and label.isdecimal():
        place: tuple[str, ...] = (*TEST, "images_per_class", label)
    elif last == "error_rate" or ((known_metric := _metrics().get(last)) is not None and known_metric.per_sample):
        place = (*metric.split(".")[:-1], "n") if "." in metric else (*TEST, "n")
    else:
        return 0.0
    counts = [count for result in results if (count := _at(result, place))]
    return 100 / min(counts) if counts else 0.0
