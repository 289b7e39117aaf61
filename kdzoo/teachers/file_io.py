"""A saved teacher's file read and written, as npz or safetensors."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdzoo.errors import InputError
from kdzoo.runs.output_files import new_output_file, output_file, write_output
from kdzoo.runs.predictions import DAMAGE
from kdzoo.runs.seals import DamagedFile, read_tensors, write_tensors
from kdzoo.teachers.file import SavedFile
from kdzoo.teachers.file_faults import FACTS, faults
from kdzoo.text import first_line

ENDINGS = (".npz", ".safetensors")


def read_saved(path: Path) -> SavedFile:
    """The file of a saved teacher; raises InputError with everything that is wrong with it."""
    if path.suffix not in ENDINGS:
        raise InputError(f"saved:{path}: expected a file that ends in .npz or .safetensors")
    if not path.is_file():
        raise InputError(f"saved:{path}: no such file")
    try:
        arrays, facts = _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
    except (DamagedFile, *DAMAGE) as error:
        raise InputError(f"saved:{path}: cannot be read: {first_line(error)}") from error
    problems = faults(arrays, facts)
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
        all_logits=None if logits is None else tensor("logits", torch.float32),
        top_log_probs=None if top is None else tensor("top_log_probs", torch.float32),
        top_classes=tensor("top_classes", torch.int64),
        embedding=tensor("embedding", torch.float32),
        class_names=tuple(json.loads(facts["class_names"])) if facts.get("class_names") else None,
        augment=json.loads(facts["augment"]) if facts.get("augment") else None,
        teacher=facts.get("teacher") or None,
    )


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in a kind that torch reads: this machine's order of bytes, float64 at most."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def require_new_saved_file(path: Path) -> None:
    """Raise InputError for a path that no saved teacher can be written to: one that exists, and one of another kind of file."""
    _require_ending(path)
    new_output_file(path)


def _require_ending(path: Path) -> None:
    if path.suffix not in ENDINGS:
        raise InputError(f"{path}: expected a file that ends in .npz or .safetensors")


def write_saved(path: Path, arrays: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Write the arrays and facts of a saved teacher, whole or not at all; raises InputError for another kind of file."""
    _require_ending(path)
    if path.suffix == ".safetensors":
        write_tensors(output_file(path), arrays, facts)
        return
    content = io.BytesIO()
    values: dict[str, Any] = {name: value.numpy() for name, value in arrays.items()}
    values |= {name: np.array(value) for name, value in facts.items()}
    np.savez(content, **values)
    write_output(path, content.getvalue())


def _read_npz(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    with np.load(path, allow_pickle=False) as archive:
        whole = {name: archive[name] for name in archive.files}
    arrays = {name: _native(value) for name, value in whole.items() if name not in FACTS}
    return arrays, {name: _text(whole[name]) for name in FACTS if name in whole}


def _text(value: NDArray[Any]) -> str:
    """A fact as it is written in the metadata of safetensors; a list of names as JSON."""
    return str(value.item()) if value.ndim == 0 else json.dumps(value.tolist())


def _read_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    tensors, metadata = read_tensors(path)
    arrays = {name: value.float().numpy() if value.is_floating_point() else value.numpy() for name, value in tensors.items()}
    return arrays, {name: metadata[name] for name in FACTS if name in metadata}
