"""What cannot be right in the file of a saved teacher."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdzoo.errors import did_you_mean
from kdzoo.teachers.file import CENTRE, KEY_BYTES

ARRAYS = ("keys", "views", "logits", "top_log_probs", "top_classes", "embedding")
FACTS = ("classes", "k", "name", "class_names", "augment", "teacher")
MOST_MASS = 1e-3
"""by which the k largest probabilities may exceed 1 together, as rounded ones do"""
LARGEST_VIEW = 2**31 - 1
"""no augmentation has as many views; places of rows are computed from their numbers"""


def faults(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> list[str]:
    """What is wrong with the content of a file, a sentence each."""
    problems = [f"unknown array {name!r}{did_you_mean(name, (*ARRAYS, *FACTS))}" for name in arrays if name not in ARRAYS]
    problems += [f"{name}: missing: {what}" for name, what in REQUIRED.items() if name not in arrays]
    if ("logits" in arrays) == ("top_log_probs" in arrays):
        problems.append("expected either logits, or top_log_probs with top_classes")
    if ("top_log_probs" in arrays) != ("top_classes" in arrays):
        problems.append("expected top_log_probs and top_classes together")
    problems += [problem for name in ("class_names", "augment") if (problem := _fault_of_json(name, facts.get(name, "null")))]
    problems += [
        f"{name}: expected a whole number > 0, got {facts[name]!r}" for name in ("classes", "k") if not _is_count(facts.get(name, "1"))
    ]
    if problems:
        return problems
    count = len(arrays["keys"])
    problems += _misshapen(arrays, count)
    if problems:
        return problems
    if "logits" in arrays:
        width = arrays["logits"].shape[1]
        if int(facts.get("classes", width)) != width:
            problems.append(f"logits: expected {facts['classes']} columns, as classes says, got {width}")
    else:
        problems += _problems_of_the_largest(arrays["top_log_probs"], arrays["top_classes"], facts)
    return problems or _contradictions(arrays)


def _fault_of_json(name: str, text: str) -> str:
    """What is wrong with a fact that is written as JSON: the names of the classes, or an augmentation; empty for nothing."""
    expected = "JSON of a list of names" if name == "class_names" else "JSON of an object, the fields of an augmentation"
    try:
        value = json.loads(text)
    except ValueError:
        return f"{name}: expected {expected}, got {text!r}"
    if name == "class_names":
        right = value is None or (isinstance(value, list) and all(isinstance(one, str) for one in value))
    else:
        right = value is None or isinstance(value, dict)
    return "" if right else f"{name}: expected {expected}, got {text}"


def _contradictions(arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """Rows of one sample and view with different answers, counted."""
    views = arrays["views"].astype("<i8").view(np.uint8).reshape(len(arrays["views"]), -1)
    pairs = np.ascontiguousarray(np.concatenate([arrays["keys"], views], axis=1))
    _, first, which = np.unique(pairs.view(np.dtype((np.void, pairs.shape[1]))).ravel(), return_index=True, return_inverse=True)
    again = np.flatnonzero(first[which] != np.arange(len(pairs)))
    answers = [arrays[name] for name in ("logits", "top_log_probs", "top_classes", "embedding") if name in arrays]
    other = np.zeros(len(again), dtype=bool)
    for values in answers:
        other |= (values[again] != values[first[which[again]]]).any(axis=1)
    number = int(other.sum())
    return [f"keys, views: {number} rows have the sample and the view of an earlier row, and another answer"] if number else []


REQUIRED = {
    "keys": "(N, 16) uint8, the digest of each sample",
    "views": "(N,) whole numbers, which view each row is of: -1 for the centre view",
}


def _is_count(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


def _misshapen(arrays: Mapping[str, NDArray[Any]], count: int) -> list[str]:
    """The arrays whose shape, kind or content cannot be right."""
    problems = []
    for name, value in arrays.items():
        whole, flat = name in ("keys", "views", "top_classes"), name == "views"
        if value.ndim != (1 if flat else 2) or len(value) != count or (name == "keys" and value.shape[1] != KEY_BYTES):
            expected = f"({count},)" if flat else f"({count}, {KEY_BYTES if name == 'keys' else 'columns'})"
            problems.append(f"{name}: expected the shape {expected}, got {value.shape}")
        elif name == "keys" and value.dtype != np.uint8:
            problems.append(f"keys: expected uint8, got {value.dtype}")
        elif value.dtype.kind not in ("iu" if whole else "f"):
            problems.append(f"{name}: expected {'whole numbers' if whole else 'floats'}, got {value.dtype}")
        elif not whole and (wrong := _not_finite(value)):
            problems.append(f"{name}: expected numbers that are finite in float32, got {wrong} that are NaN, infinite or too large")
        elif flat and count and (value.min() < CENTRE or value.max() > LARGEST_VIEW):
            problems.append(f"views: expected -1 to {LARGEST_VIEW}, got {int(value.min())} to {int(value.max())}")
    if not count:
        problems.append("keys: expected at least one row, got none")
    return problems


def _not_finite(values: NDArray[Any]) -> int:
    with np.errstate(over="ignore"):
        return int((~np.isfinite(values.astype(np.float32))).sum())


def _problems_of_the_largest(logs: NDArray[Any], classes: NDArray[Any], facts: Mapping[str, str]) -> list[str]:
    """What is wrong with the k largest log-probabilities and their classes."""
    if missing := [name for name in ("classes", "k") if name not in facts]:
        return [f"{name}: missing: how many classes {'there are' if name == 'classes' else 'each row holds'}" for name in missing]
    total, k, problems = int(facts["classes"]), int(facts["k"]), []
    for name, value in (("top_log_probs", logs), ("top_classes", classes)):
        if value.shape[1] != k:
            problems.append(f"{name}: expected {k} columns, as k says, got {value.shape[1]}")
    if k > total:
        problems.append(f"k: expected at most {total}, the number of classes, got {k}")
    if classes.min() < 0 or classes.max() >= total:
        problems.append(f"top_classes: expected numbers from 0 to {total - 1}, got {int(classes.min())} to {int(classes.max())}")
    elif (np.diff(np.sort(classes, axis=1), axis=1) == 0).any():
        problems.append("top_classes: expected different classes in each row, got one twice")
    if (mass := float(np.exp(logs.astype(np.float64)).sum(1).max())) > 1 + MOST_MASS:
        problems.append(f"top_log_probs: expected logarithms of probabilities at T = 1, which sum to at most 1, got {mass:.3g} in a row")
    elif total > k and (smaller := int((_share_of_others(logs, total) > np.exp(logs.min(1)) + MOST_MASS).sum())):
        problems.append(
            f"top_log_probs: expected the {k} largest of {total}, but in {smaller} rows the other classes would get more each than the "
            "smallest of them"
        )
    return problems


def _share_of_others(logs: NDArray[Any], classes: int) -> NDArray[Any]:
    """The probability that each of the classes that are not listed gets, (N,)."""
    rest = 1 - np.exp(logs.astype(np.float64)).sum(1)
    shares: NDArray[Any] = rest.clip(min=0) / (classes - logs.shape[1])
    return shares
