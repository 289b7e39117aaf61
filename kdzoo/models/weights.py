"""How a network is named by a user, and how its weights are read from files and written to them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kdzoo.errors import InputError
from kdzoo.models.names import network_names
from kdzoo.seals import Damaged, read_tensors, write_tensors

if TYPE_CHECKING:
    from kdzoo.models.network import Network

Start = Literal["random", "pretrained", "file", "run"]
FILES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt")
RUN_ID = re.compile(r"^[\w+]+-[0-9a-f]{12}$")
WRAPPERS = ("state_dict", "state_dict_ema", "model_state_dict", "model")
CLASSIFIER = re.compile(r"^(fc|classifier|head|head_dist|linear|last_linear)(\.\d+|\.fc|\.l|\.linear)?\.weight$")
SHIPPED_WITH = "shipped_with."
PREFIXES = ("_orig_mod.", "module.", "model.")


@dataclass(frozen=True)
class NetworkRequest:
    """A network in a user's words: its name, where its weights come from, its stem and the side of its input."""

    text: str
    name: str
    start: Start
    path: Path | None = None
    run_id: str | None = None
    stem: Literal["standard", "small"] = "standard"
    image_size: int | None = None


def parse_network(text: str) -> NetworkRequest:
    """`resnet34`, `resnet34:pretrained`, `resnet34:FILE`, `FILE`, a run's id; then `@small` and `@SIZE` as wanted.

    Ids of runs joined by `+` are an ensemble.
    A file alone says its architecture in its own metadata or in its name. Raises InputError where it does not.
    """
    words, *suffixes = text.split("@")
    stem: Literal["standard", "small"] = "standard"
    image_size = None
    for suffix in suffixes:
        if suffix == "small":
            stem = "small"
        elif suffix.isdigit() and int(suffix) > 0:
            image_size = int(suffix)
        else:
            raise InputError(f"network {text!r}: expected @small or @SIZE, got @{suffix}")
    name, colon, weights = words.partition(":")
    if not colon:
        if all(RUN_ID.match(part) for part in ensemble_ids(words)):
            return NetworkRequest(text, "", "run", run_id=words, stem=stem, image_size=image_size)
        if words.endswith(FILES):
            path = _existing(text, words)
            return NetworkRequest(text, architecture_of(path), "file", path=path, stem=stem, image_size=image_size)
        return NetworkRequest(text, name, "random", stem=stem, image_size=image_size)
    if weights == "random":
        return NetworkRequest(text, name, "random", stem=stem, image_size=image_size)
    if weights == "pretrained":
        return NetworkRequest(text, name, "pretrained", stem=stem, image_size=image_size)
    if RUN_ID.match(weights):
        return NetworkRequest(text, name, "run", run_id=weights, stem=stem, image_size=image_size)
    return NetworkRequest(text, name, "file", path=_existing(text, weights), stem=stem, image_size=image_size)


def ensemble_ids(text: str) -> list[str]:
    """The ids of `none-0123456789ab+hinton+at-0123456789ab`: a plus stands between them where it follows an id's digits."""
    return re.split(r"(?<=-[0-9a-f]{12})\+", text)


def _existing(text: str, path: str) -> Path:
    if not Path(path).is_file():
        raise InputError(f"network {text!r}: no such file: {path}")
    return Path(path)


def architecture_of(path: Path) -> str:
    """The architecture whose weights a file holds, from its metadata or from the longest network name in its file name."""
    if path.suffix == ".safetensors":
        named = _metadata(path).get("architecture")
        if named:
            return str(named)
    else:
        held = _load(path)
        named = held.get("arch", held.get("architecture")) if isinstance(held, Mapping) else None
        if isinstance(named, str):
            return named
    inside = [name for name in network_names() if re.search(rf"(^|[^a-z0-9]){re.escape(name)}([^a-z0-9]|$)", path.stem.lower())]
    if not inside:
        raise InputError(f"network {str(path)!r}: which architecture is it? Say NAME:{path}, for example resnet50:{path}")
    return max(inside, key=len)


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_state(path: Path, owner: str | None = None) -> dict[str, Tensor]:
    """The state dict in a safetensors or torch file, freed of wrappers and of prefixes that every key carries.

    owner: the run whose weights they must be, as `save_student` wrote them. Raises InputError for what is no such file or
    not what was written, and for a student that is shipped with parts of its method; code inside a pickle is never run.
    """
    if path.suffix == ".safetensors" or owner is not None:
        state, parts = read_shipped(path, owner)
        if parts:
            raise InputError(f"weights: {path} holds a student that is shipped with parts of its method; alone it is not what was measured")
        return state
    held = _load(path)
    for wrapper in WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(wrapper), Mapping):
            held = held[wrapper]
    if not isinstance(held, Mapping) or not held or not all(isinstance(value, Tensor) for value in held.values()):
        raise InputError(f"weights: {path}: expected a state dict, or one under {', '.join(WRAPPERS)}")
    state = {str(key): value for key, value in held.items() if key != "n_averaged"}  # torch's AveragedModel counts in its state
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def read_shipped(path: Path, owner: str | None = None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state dict of a student in a safetensors file, and that of what it is shipped with (empty for most).

    A file without a digest, which another program wrote, is read as it is unless it must be an owner's.
    """
    try:
        held, _ = read_tensors(path, owner)
    except (Damaged, FileNotFoundError) as error:
        again = "" if owner is None else f"; `kdzoo run {path.parent}` trains {owner} again"
        raise InputError(f"weights: {error}{again}") from error
    parts = {key.removeprefix(SHIPPED_WITH): value for key, value in held.items() if key.startswith(SHIPPED_WITH)}
    return {key: value for key, value in held.items() if not key.startswith(SHIPPED_WITH)}, parts


def _load(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint make torch.load raise almost anything
        reason = str(error).partition("\n")[0][:120]
        raise InputError(f"weights: {path} cannot be read as plain tensors ({reason}); save model.state_dict()") from error


def _metadata(path: Path) -> Mapping[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"weights: {path}: no safetensors file ({error})") from error


@dataclass(frozen=True)
class Input:
    """How a network that was trained here takes images: its normalisation, and the side that they are resized to."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int | None


def input_of(path: Path) -> Input | None:
    """How the network in a file takes images, as `save_student` wrote it; None where the file does not say."""
    said = _metadata(path).get("input") if path.suffix == ".safetensors" else None
    if said is None:
        return None
    values = json.loads(said)
    return Input(tuple(values["mean"]), tuple(values["std"]), values["image_size"])


def classes_of(state: Mapping[str, Tensor]) -> int | None:
    """How many classes a state dict's last two-dimensional weight scores, as a good guess; None where there is none."""
    known = [key for key in state if CLASSIFIER.match(key)]
    last = known or [key for key, value in state.items() if key.endswith("weight") and value.ndim == 2]
    return int(state[last[-1]].shape[0]) if last else None


def load_state(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict whole; raises InputError that says what is missing, unknown or of another shape."""
    own = model.state_dict()
    problems = {
        # batch norms of old checkpoints do not count their batches, and in evaluation nothing reads the count
        "missing": [key for key in own if key not in state and not key.endswith("num_batches_tracked")],
        "unexpected": [key for key in state if key not in own],
        "of another shape": [
            f"{key} {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ],
    }
    said = [f"{len(keys)} {what}: {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''}" for what, keys in problems.items() if keys]
    if said:
        raise InputError(f"weights: {where} do not fit the network: {'; '.join(said)}")
    model.load_state_dict(dict(state), strict=False)


def save_student(network: Network, path: Path, metadata: Mapping[str, str], shipped_with: nn.Module | None = None) -> None:
    """Write the wrapped model's state dict as safetensors that plain timm loads, whole or not at all.

    How the network takes images goes into the metadata (`input`): weights are worth little under another normalisation.
    shipped_with: parts of a method without which the student is not what was measured; their entries begin with
    `shipped_with.`, and plain timm refuses them.
    """
    parts = {} if shipped_with is None else {f"{SHIPPED_WITH}{key}": value for key, value in shipped_with.state_dict().items()}
    state = {**network.model.state_dict(), **parts}
    takes = {"mean": network.mean.flatten().tolist(), "std": network.std.flatten().tolist(), "image_size": network.image_size}
    write_tensors(path, state, {**metadata, "input": json.dumps(takes)})
