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


def faults(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> list[str]:
    """What is wrong with the content of a file, a sentence each."""
    problems = [f"unknown array {name!r}{did_you_mean(name, (*ARRAYS, *FACTS))}" for name in arrays if name not in ARRAYS]
    problems += [f"{name}: missing: {what}" for name, what in REQUIRED.items() if name not in arrays]
    if ("logits" in arrays) == ("top_log_probs" in arrays):
        problems.append("expected either logits, or top_log_probs with top_classes")
    if ("top_log_probs" in arrays) != ("top_classes" in arrays):
        problems.append("expected top_log_probs and top_classes together")
    for name in ("class_names", "augment"):
        try:
            json.loads(facts.get(name, "null"))
        except ValueError:
            problems.append(f"{name}: expected JSON, got {facts[name]!r}")
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
        return problems
    return _problems_of_the_largest(arrays["top_log_probs"], arrays["top_classes"], facts)


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
        elif not whole and not np.isfinite(value).all():
            problems.append(f"{name}: expected finite numbers, got {int((~np.isfinite(value)).sum())} that are NaN or infinite")
        elif flat and (value < CENTRE).any():
            problems.append(f"views: expected -1 or more, got {int(value.min())}")
    if not count:
        problems.append("keys: expected at least one row, got none")
    return problems


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
    return problems
