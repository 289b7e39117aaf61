"""A network's own weights: loaded whole, and the file of a student that was trained here."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kdzoo.errors import InputError
from kdzoo.runs.seals import DamagedFile, read_tensors, write_tensors

if TYPE_CHECKING:
    from kdzoo.models.network import Network
from kdzoo.models.state_names import CRITERION, common_prefix

CLASSIFIER = re.compile(r"^(generalist\.)?(fc|classifier|head|head_dist|linear|last_linear)(\.\d+|\.fc|\.l|\.linear)?\.weight$")
DEPLOY_PREFIX = "shipped_with."


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_deployed(path: Path, owner: str | None = None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state dict of a student in a safetensors file, and that of what it is shipped with (empty for most).

    A file without a digest, which another program wrote, is read as it is unless it must be an owner's.
    """
    try:
        tensors, _ = read_tensors(path, owner)
    except (DamagedFile, FileNotFoundError) as error:
        again = "" if owner is None else f"; `kdzoo run {shlex.quote(str(path.parent))}` trains {owner} again"
        raise InputError(f"weights: {error}{again}") from error
    parts = {key.removeprefix(DEPLOY_PREFIX): value for key, value in tensors.items() if key.startswith(DEPLOY_PREFIX)}
    return {key: value for key, value in tensors.items() if not key.startswith(DEPLOY_PREFIX)}, parts


def metadata_of(path: Path) -> Mapping[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"weights: {path}: not a safetensors file ({error})") from error


@dataclass(frozen=True)
class InputTransform:
    """How a network that was trained here takes images: its normalisation, and the side that they are resized to."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int | None


def read_input_transform(path: Path) -> InputTransform | None:
    """How the network in a file takes images, as `save_student` wrote it; None where the file does not say, or says something else."""
    text = metadata_of(path).get("input") if path.suffix == ".safetensors" else None
    try:
        values = json.loads(text or "null")
        return InputTransform(tuple(map(float, values["mean"])), tuple(map(float, values["std"])), values["image_size"])
    except (ValueError, TypeError, KeyError, RecursionError):  # `input` is a word that other programs use too
        return None


def classes_of(state: Mapping[str, Tensor]) -> int | None:
    """How many classes a state dict's last two-dimensional weight scores, as a good guess; None where there is none."""
    keys = [key for key in state if CLASSIFIER.match(key)]
    last = keys or [key for key, value in state.items() if key.endswith("weight") and value.ndim == 2]
    return int(state[last[-1]].shape[0]) if last else None


def load_state(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict whole; raises InputError that says what is missing, unknown or of another shape.

    Prefixes that all of the model's names or all of the state's carry do not count, nor does a criterion within the model.
    """
    whole = model.state_dict()
    own_prefix, prefix = common_prefix(name for name in whole if not CRITERION.match(name)), common_prefix(state)
    own = {name.removeprefix(own_prefix): value for name, value in whole.items()}
    state = {name.removeprefix(prefix): value for name, value in state.items()}
    problems = {
        # batch norms of old checkpoints do not count their batches, and in evaluation nothing reads the count
        "missing": [key for key in own if key not in state and not key.endswith("num_batches_tracked") and not CRITERION.match(key)],
        "unexpected": [key for key in state if key not in own],
        "of another shape": [
            f"{key} {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ],
    }
    faults = [f"{len(keys)} {what}: {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''}" for what, keys in problems.items() if keys]
    if faults:
        raise InputError(f"weights: {where} do not fit the network: {'; '.join(faults)}")
    model.load_state_dict({own_prefix + name: value for name, value in state.items()}, strict=False)


def save_student(network: Network, path: Path, metadata: Mapping[str, str], method_parts: nn.Module | None = None) -> None:
    """Write the wrapped model's state dict as safetensors that plain timm loads, whole or not at all.

    How the network takes images goes into the metadata (`input`): weights are worth little under another normalisation.
    method_parts: parts of a method without which the student is not what was measured; their entries begin with
    `shipped_with.`, and plain timm refuses them.
    """
    parts = {} if method_parts is None else {f"{DEPLOY_PREFIX}{key}": value for key, value in method_parts.state_dict().items()}
    state = {**network.model.state_dict(), **parts}
    takes = {"mean": network.mean.flatten().tolist(), "std": network.std.flatten().tolist(), "image_size": network.image_size}
    write_tensors(path, state, {**metadata, "input": json.dumps(takes)})
