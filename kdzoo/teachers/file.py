"""The file of a saved teacher: its answers by sample and view, as npz or safetensors (docs/saved-teachers.md has the format)."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdzoo.contract.needs import Need
from kdzoo.errors import InputError, did_you_mean
from kdzoo.runs.seals import Damaged, read_tensors, write_tensors
from kdzoo.runs.spec import Augment
from kdzoo.runs.store import write_bytes
from kdzoo.text import first_line

KINDS = (".npz", ".safetensors")
CENTRE = -1
"""the number of the view that evaluation takes: the whole image, or its centre"""
KEY_BYTES = 16
ARRAYS = ("keys", "views", "logits", "top_log_probs", "top_classes", "embedding")
FACTS = ("classes", "k", "name", "class_names", "augment", "teacher")
MOST_MASS = 1e-3
"""by which the k largest probabilities may exceed 1 together, as rounded ones do"""
LEAST_MASS = 1e-12
"""what is left for the other classes at least: a logarithm of zero is no score"""


@dataclass(frozen=True)
class SavedFile:
    """The answers of a teacher to N (sample, view) pairs.

    digest: sha256 of the file. keys (N, 16) uint8: the digests of the samples. views (N,) int64: CENTRE, or the number of a
    padded crop and flip under `augment`. logits (N, K) float32, or top_log_probs (N, k) float32 with top_classes (N, k)
    int64, the logarithms of the k largest probabilities at T = 1. embedding (N, D) float32, or None.
    teacher: the id of the run that is the living teacher, where it is one.
    """

    path: Path
    digest: str
    name: str
    classes: int
    keys: NDArray[np.uint8]
    views: NDArray[np.int64]
    logits_: Tensor | None
    top_log_probs: Tensor | None
    top_classes: Tensor | None
    embedding: Tensor | None
    class_names: tuple[str, ...] | None = None
    augment: Mapping[str, Any] | None = None
    teacher: str | None = None

    @property
    def offers(self) -> Need:
        """The outputs that it can give; as an ensemble it is one network."""
        return Need.LOGITS | Need.MEMBERS | (Need.NOTHING if self.embedding is None else Need.EMBEDDING)

    @property
    def k(self) -> int | None:
        """How many classes of each row it holds; None for all."""
        return None if self.top_classes is None else self.top_classes.shape[1]

    def has_views_of(self, augment: Augment) -> bool:
        """Whether it holds the very views that an augmentation makes, by their numbers."""
        same = self.augment is not None and dict(self.augment) == augment.model_dump(mode="json")
        return same and augment.countable and bool((self.views != CENTRE).any())

    @cached_property
    def _row_of(self) -> dict[bytes, int]:
        """The first row of each sample and view."""
        found: dict[bytes, int] = {}
        for row, (key, view) in enumerate(zip(self.keys, self.views.astype("<i8"), strict=True)):
            found.setdefault(key.tobytes() + view.tobytes(), row)
        return found

    def find(self, keys: Tensor, views: Tensor | int = CENTRE) -> Tensor:
        """The rows (M,) int64 of samples by their keys (M, 16) and views (M,); -1 where there is none."""
        numbers = np.broadcast_to(np.asarray(views, dtype="<i8"), (len(keys),))
        return torch.tensor(
            [self._row_of.get(key.tobytes() + view.tobytes(), -1) for key, view in zip(keys.numpy(), numbers, strict=True)],
            dtype=torch.int64,
        )

    def logits(self, rows: Tensor) -> Tensor:
        """Class scores (B, K) float32 of rows (B,): their softmax at T = 1 is what the teacher said."""
        if self.logits_ is not None:
            return self.logits_[rows]
        assert self.top_log_probs is not None
        assert self.top_classes is not None
        return spread(self.top_log_probs[rows], self.top_classes[rows], self.classes)


def spread(top_log_probs: Tensor, top_classes: Tensor, classes: int) -> Tensor:
    """Log-probabilities (B, K) at T = 1 from the k largest (B, k): what is left of 1 is divided equally over the other K - k."""
    logs = top_log_probs.double()
    others = classes - logs.shape[1]
    if not others:
        whole = logs.new_zeros(len(logs), classes)
    else:
        left = (1 - logs.exp().sum(1, keepdim=True)).clamp(min=LEAST_MASS)
        whole = (left / others).log().expand(-1, classes).clone()
    return whole.scatter_(1, top_classes, logs).float()


def read_saved(path: Path) -> SavedFile:
    """The file of a saved teacher; raises InputError with everything that is wrong with it."""
    if path.suffix not in KINDS:
        raise InputError(f"saved:{path}: expected a file that ends in .npz or .safetensors")
    if not path.is_file():
        raise InputError(f"saved:{path}: no such file")
    try:
        arrays, facts = _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
    except (Damaged, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"saved:{path}: cannot be read: {first_line(error)}") from error
    problems = _problems(arrays, facts)
    if problems:
        raise InputError(*(f"saved:{path}: {problem}" for problem in problems))
    logits, top = arrays.get("logits"), arrays.get("top_log_probs")
    classes = int(facts["classes"]) if "classes" in facts else arrays["logits"].shape[1]

    def tensor(name: str, dtype: torch.dtype) -> Tensor | None:
        return torch.from_numpy(arrays[name]).to(dtype) if name in arrays else None

    return SavedFile(
        path=path,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        name=str(facts.get("name") or path.stem).replace("/", "_"),
        classes=classes,
        keys=arrays["keys"],
        views=arrays["views"].astype(np.int64),
        logits_=None if logits is None else tensor("logits", torch.float32),
        top_log_probs=None if top is None else tensor("top_log_probs", torch.float32),
        top_classes=tensor("top_classes", torch.int64),
        embedding=tensor("embedding", torch.float32),
        class_names=tuple(json.loads(facts["class_names"])) if facts.get("class_names") else None,
        augment=json.loads(facts["augment"]) if facts.get("augment") else None,
        teacher=facts.get("teacher") or None,
    )


def write_saved(path: Path, arrays: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Write the arrays and facts of a saved teacher, whole or not at all; raises InputError for another kind of file."""
    if path.suffix not in KINDS:
        raise InputError(f"{path}: expected a file that ends in .npz or .safetensors")
    if path.suffix == ".safetensors":
        write_tensors(path, arrays, facts)
        return
    content = io.BytesIO()
    values: dict[str, Any] = {name: value.numpy() for name, value in arrays.items()}
    values |= {name: np.array(value) for name, value in facts.items()}
    np.savez(content, **values)
    write_bytes(path, content.getvalue())


def _read_npz(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    with np.load(path, allow_pickle=False) as archive:
        whole = {name: archive[name] for name in archive.files}
    arrays = {name: value for name, value in whole.items() if name not in FACTS}
    return arrays, {name: _text(whole[name]) for name in FACTS if name in whole}


def _text(value: NDArray[Any]) -> str:
    """A fact as it is written in the metadata of safetensors; a list of names as JSON."""
    return str(value.item()) if value.ndim == 0 else json.dumps(value.tolist())


def _read_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    tensors, metadata = read_tensors(path)
    arrays = {name: value.float().numpy() if value.is_floating_point() else value.numpy() for name, value in tensors.items()}
    return arrays, {name: metadata[name] for name in FACTS if name in metadata}


def _problems(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> list[str]:
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
