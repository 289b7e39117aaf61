"""Weights in files that other programs wrote: which of several sets is used, without prefixes and without what is no weight."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdzoo.errors import InputError, add_clause, did_you_mean
from kdzoo.models.harmless import harmless_types
from kdzoo.models.state_names import CRITERION, common_prefix
from kdzoo.models.weights import metadata_of, read_deployed
from kdzoo.text import first_line, number_of

RAW = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights", "module")
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "ema", "averaged_model")
"""the keys under which checkpoints keep the weights as trained, and their average; the first that is there is taken"""
EMA = "ema"
"""in `@weights=ema` the average, under whatever key it lies"""
COUNTERS = re.compile(r"(^|\.)(total_ops|total_params|n_averaged)$")
"""what thop and torch's AveragedModel leave in a state: numbers that no forward reads"""
CLASS_NAMES = ("class_names", "classes", "class_to_idx", "categories", "labels")
"""the keys under which checkpoints keep the names of their classes, at the top or under `meta`"""

PICKLED_CODE = re.compile(r"Unsupported global: GLOBAL ([\w.]+)")
"""how torch names a class or function that a file would have to call to be read"""
ANSI = re.compile(r"\x1b\[[0-9;]*m")
"""the colours in torch's messages"""


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds. state: the weights that are used, without prefixes.

    sets: the keys of all sets of weights in it, the usual one first ("" for the file itself). key: of the set that is used.
    ignored: the names of other entries, such as a criterion's weights. class_names: of the classes that it was trained on,
    None where it does not say.
    """

    state: dict[str, Tensor]
    sets: tuple[str, ...]
    key: str
    ignored: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None

    @property
    def named_set(self) -> str | None:
        """The key of the set that is used, as a specification names it (`weights`); None for the usual one."""
        return None if self.key == self.sets[0] else self.key

    def remarks(self, name: str) -> tuple[str, ...]:
        """Notes on what the file holds and is not used."""
        remarks = []
        if others := [key for key in self.sets if key != self.key]:
            more = ", ".join(f"{key!r} (@weights={key})" for key in others)
            remarks.append(f"{name}: its file holds several sets of weights; {self.key!r} is used, not {more}")
        if self.ignored:
            names = ", ".join(self.ignored[:3]) + (", ..." if len(self.ignored) > 3 else "")
            remarks.append(f"{name}: ignored {number_of(len(self.ignored), 'entry', 'entries')} beside its weights: {names}")
        return tuple(remarks)


def read_state(path: Path, owner: str | None = None, key: str | None = None) -> dict[str, Tensor]:
    """The state dict in a safetensors or torch file, as `read_checkpoint` takes it."""
    return read_checkpoint(path, owner, key).state


def read_checkpoint(path: Path, owner: str | None = None, key: str | None = None) -> Checkpoint:
    """The weights in a safetensors or torch file, freed of wrappers and of prefixes that every name carries.

    owner: the run whose weights they must be, as `save_student` wrote them. key: which of several sets of weights is taken,
    `ema` for an average; None for the first of RAW, then of AVERAGED. Raises InputError for what is no such file or not what
    was written, for a key that it lacks, and for a student that is shipped with parts of its method; code inside a pickle
    is never run.
    """
    if path.suffix == ".safetensors" or owner is not None:
        state_here, parts = read_deployed(path, owner)
        if parts:
            raise InputError(
                f"weights: {path} holds a student that needs parts of its method at inference; without them it is not the network that "
                "was measured"
            )
        sets: dict[str, Mapping[str, Any]] = {"": state_here}
        names = class_names_in(metadata_of(path))
    else:
        content = load_plain_tensors(path)
        sets = _sets_of(content)
        names = class_names_in(content) if isinstance(content, Mapping) else None
    if not sets:
        raise InputError(f"weights: {path}: expected a state dict, or one under {', '.join((*RAW, *AVERAGED))}")
    name_of_set = next((name for name in AVERAGED if name in sets), EMA) if key == EMA else key
    if name_of_set is not None and name_of_set not in sets:
        names_of_sets = ", ".join(name or "(without a key)" for name in sets)
        fault = f"weights: {path}: has no weights under {name_of_set!r}{did_you_mean(name_of_set, sets)}"
        raise InputError(add_clause(fault, f"it has: {names_of_sets}"))
    set_key = next(iter(sets)) if name_of_set is None else name_of_set
    tensors = {str(name): value for name, value in sets[set_key].items() if isinstance(value, Tensor)}
    ignored = [str(name) for name in sets[set_key] if name not in tensors] + [name for name in tensors if COUNTERS.search(name)]
    tensors = {name: value for name, value in tensors.items() if name not in ignored}
    own = [name for name in tensors if not CRITERION.match(name)]
    prefix = common_prefix(own)
    state = {name.removeprefix(prefix): tensors[name] for name in own}
    ignored += [name for name in tensors if name not in own]
    return Checkpoint(state, tuple(sets), set_key, tuple(ignored), names)


def class_names_of(path: Path) -> tuple[str, ...] | None:
    """The names of the classes that kept weights were trained on, from their metadata; None where they do not say."""
    return class_names_in(metadata_of(path)) if path.suffix == ".safetensors" and path.is_file() else None


def _sets_of(content: object) -> dict[str, Mapping[str, Any]]:
    """The sets of weights in what a torch file holds, by key, those as trained first."""
    if not isinstance(content, Mapping):
        return {}
    if _is_state(content):
        return {"": content}
    sets: dict[str, Mapping[str, Any]] = {}
    for name in (*RAW, *AVERAGED):
        inner = content.get(name)
        while isinstance(inner, Mapping) and not _is_state(inner):  # a wrapper in a wrapper
            inner = next((inner[key] for key in (*RAW, *AVERAGED) if isinstance(inner.get(key), Mapping)), None)
        if isinstance(inner, Mapping):
            sets[name] = inner
    return sets


def _is_state(content: Mapping[Any, Any]) -> bool:
    """Whether a mapping is a state dict: tensors by name, beside which only plain values may lie."""
    tensors = sum(isinstance(value, Tensor) for value in content.values())
    return tensors > 0 and all(isinstance(value, Tensor | str | int | float | bytes | None) for value in content.values())


def class_names_in(content: Mapping[Any, Any]) -> tuple[str, ...] | None:
    """The names of the classes, in their order, that a checkpoint or a safetensors file's metadata holds; None where it does not say."""
    meta = content.get("meta")
    for mapping in (content, meta if isinstance(meta, Mapping) else {}):
        by_key = {str(key).lower(): value for key, value in mapping.items()}
        for key in CLASS_NAMES:
            value = by_key.get(key)
            if isinstance(value, str):
                try:
                    value = json.loads(value)
                except (ValueError, RecursionError):
                    continue
            if isinstance(value, Mapping) and value and all(isinstance(index, int) for index in value.values()):
                value = sorted(value, key=value.__getitem__)
            if isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value):
                return tuple(value)
    return None


def load_plain_tensors(path: Path) -> object:
    try:
        with torch.serialization.safe_globals(list(harmless_types())):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint make torch.load raise almost anything
        if found := PICKLED_CODE.search(str(error)):
            content = f"it holds a pickled model or other code ({found[1]}), which is never run"
            raise InputError(f"weights: {path} cannot be read as plain tensors: {content}; save model.state_dict() instead") from error
        reason = first_line(ANSI.sub("", str(error)))
        raise InputError(f"weights: {path} cannot be read as plain tensors ({reason}); save model.state_dict()") from error
