"""How a network is named by a user, and how its weights are read from files and written to them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import timm
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from kdzoo.errors import InputError, did_you_mean
from kdzoo.models.harmless import harmless_types
from kdzoo.models.names import is_known, network_names
from kdzoo.models.normalisation import AUTO, normalisation_of
from kdzoo.runs.seals import Damaged, read_tensors, write_tensors
from kdzoo.text import first_line, number_of

if TYPE_CHECKING:
    from kdzoo.models.network import Network

Start = Literal["random", "pretrained", "file", "run", "saved"]
SAVED = "saved:"
"""what begins the words for a saved teacher"""
FILES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt")
RUN_ID = re.compile(r"^[\w+]+-[0-9a-f]{12}$")
RAW = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights", "module")
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "ema", "averaged_model")
"""the keys under which checkpoints keep the weights as trained, and their average; the first that is there is taken"""
EMA = "ema"
"""in `@weights=ema` the average, under whatever key it lies"""
CLASSIFIER = re.compile(r"^(generalist\.)?(fc|classifier|head|head_dist|linear|last_linear)(\.\d+|\.fc|\.l|\.linear)?\.weight$")
SHIPPED_WITH = "shipped_with."
PREFIXES = ("_orig_mod.", "module.", "model.", "net.", "network.", "backbone.")
"""what compilation, data parallelism, training frameworks and modules around a network put before each of its names"""
COUNTERS = re.compile(r"(^|\.)(total_ops|total_params|n_averaged)$")
"""what thop and torch's AveragedModel leave in a state: numbers that no forward reads"""
CRITERION = re.compile(r"^(criterion|loss|loss_fn|loss_fct|loss_func|loss_function)\.")
"""parameters and buffers of a loss that was saved beside the network"""
CLASS_NAMES = ("class_names", "classes", "class_to_idx", "categories", "labels")
"""the keys under which checkpoints keep the names of their classes, at the top or under `meta`"""


@dataclass(frozen=True)
class NetworkRequest:
    """A network in a user's words: its name, where its weights come from, its stem, the side of its input, its normalisation.

    norm: as `normalisation.normalisation_of` takes it, or `auto`. weights: which of several sets in its file; None for the usual.
    """

    text: str
    name: str
    start: Start
    path: Path | None = None
    run_id: str | None = None
    stem: Literal["standard", "small"] = "standard"
    image_size: int | None = None
    norm: str | None = None
    weights: str | None = None


def parse_network(text: str) -> NetworkRequest:
    """`resnet34`, `resnet34:pretrained`, `resnet34:FILE`, `FILE`, a run's id, `saved:FILE`; then options, each after an `@`.

    Options: `@small`, `@SIZE`, `@norm=NAME|MEAN/STD|auto`, `@weights=KEY`. A path may hold `@`, `:` and blanks, and begin
    with `~`: what names a file is a file. Ids of runs joined by `+` are an ensemble.
    A file alone says its architecture in its own metadata or in its name. Raises InputError where it does not.
    """
    if text.startswith(SAVED):
        return NetworkRequest(text, "", "saved", path=_existing(text, text.removeprefix(SAVED)))
    words, options = _without_options(text)
    name, colon, weights = words.partition(":")
    if words.endswith(FILES) and (not colon or _is_file(words)):
        path = _existing(text, words)
        return NetworkRequest(text, architecture_of(path), "file", path=path, **options)
    if not colon:
        if all(RUN_ID.match(part) for part in ensemble_ids(words)):
            return NetworkRequest(text, "", "run", run_id=words, **options)
        return NetworkRequest(text, name, "random", **options)
    if weights in ("random", "pretrained"):
        return NetworkRequest(text, name, weights, **options)  # type: ignore[arg-type]
    if RUN_ID.match(weights):
        return NetworkRequest(text, name, "run", run_id=weights, **options)
    return NetworkRequest(text, name, "file", path=_existing(text, weights), **options)


def pretrained_unless_said(text: str) -> str:
    """A network's bare name as `NAME:pretrained`, with its options, where there are published weights; any other words as they are."""
    if parse_network(text).start != "random" or ":" in _without_options(text)[0]:
        return text
    name, at, options = text.partition("@")
    if is_known(name) and not timm.is_model_pretrained(name):
        return text
    return f"{name}:pretrained{at}{options}"


def _without_options(text: str) -> tuple[str, dict[str, Any]]:
    """The words for a network before its options, and the options; raises InputError for one that is none."""
    words: str = text
    options: dict[str, Any] = {}
    while "@" in words and not _is_file(words) and not _is_file(words.partition(":")[2]):
        before, _, last = words.rpartition("@")
        key, equals, value = last.partition("=")
        if last == "small":
            found: tuple[str, Any] = ("stem", last)
        elif last.isdecimal() and int(last) > 0:
            found = ("image_size", int(last))
        elif equals and key in ("norm", "weights") and value:
            found = (key, value)
        elif "/" in last or last.endswith(FILES):  # of a path, which is said to be missing
            break
        else:
            raise InputError(f"network {text!r}: expected @small or @SIZE, @norm=NAME or MEAN/STD, @weights=KEY, got @{last}")
        if found[0] in options:
            raise InputError(f"network {text!r}: @{last}: given twice")
        words, options = before, {**options, found[0]: found[1]}
    if options.get("norm") not in (None, AUTO):
        normalisation_of(options["norm"])
    return words, options


def _is_file(path: str) -> bool:
    try:
        return bool(path) and Path(path).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):  # a name that is too long, the home of nobody, a zero byte
        return False


def ensemble_ids(text: str) -> list[str]:
    """The ids of `none-0123456789ab+hinton+at-0123456789ab`: a plus stands between them where it follows an id's digits."""
    return re.split(r"(?<=-[0-9a-f]{12})\+", text)


def _existing(text: str, path: str) -> Path:
    if not _is_file(path):
        raise InputError(f"network {text!r}: no such file: {path}")
    return Path(path).expanduser()


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
        raise InputError(f"network {str(path)!r}: which architecture is it? Write NAME:{path}, for example resnet50:{path}")
    return max(inside, key=len)


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """What a file of weights holds. state: the weights that are taken, freed of prefixes.

    sets: the keys of all sets of weights in it, the usual one first ("" for the file itself). taken: the key of those that
    are taken. aside: the names that are ignored, such as a criterion's weights. class_names: of the classes that it was
    trained on, None where it does not say.
    """

    state: dict[str, Tensor]
    sets: tuple[str, ...]
    taken: str
    aside: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None

    def remarks(self, name: str) -> tuple[str, ...]:
        """What is to be said of what was not taken."""
        said = []
        if others := [key for key in self.sets if key != self.taken]:
            more = ", ".join(f"{key!r} (@weights={key})" for key in others)
            said.append(f"{name}: its file holds several sets of weights; {self.taken!r} is used, not {more}")
        if self.aside:
            dots = ", ..." if len(self.aside) > 3 else ""
            said.append(
                f"{name}: ignored {number_of(len(self.aside), 'entry', 'entries')} beside its weights: {', '.join(self.aside[:3])}{dots}"
            )
        return tuple(said)


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
        found, parts = read_shipped(path, owner)
        if parts:
            raise InputError(
                f"weights: {path} holds a student that needs parts of its method at inference; without them it is not the network that "
                "was measured"
            )
        sets: dict[str, Mapping[str, Any]] = {"": found}
        names = class_names_in(_metadata(path))
    else:
        content = _load(path)
        sets = _sets_of(content)
        names = class_names_in(content) if isinstance(content, Mapping) else None
    if not sets:
        raise InputError(f"weights: {path}: expected a state dict, or one under {', '.join((*RAW, *AVERAGED))}")
    wanted = next((name for name in AVERAGED if name in sets), EMA) if key == EMA else key
    if wanted is not None and wanted not in sets:
        listed = ", ".join(name or "(without a key)" for name in sets)
        raise InputError(f"weights: {path}: has no weights under {wanted!r}{did_you_mean(wanted, sets)}; it has: {listed}")
    taken = next(iter(sets)) if wanted is None else wanted
    tensors = {str(name): value for name, value in sets[taken].items() if isinstance(value, Tensor)}
    aside = [str(name) for name in sets[taken] if name not in tensors] + [name for name in tensors if COUNTERS.search(name)]
    tensors = {name: value for name, value in tensors.items() if name not in aside}
    own = [name for name in tensors if not CRITERION.match(name)]
    prefix = common_prefix(own)
    state = {name.removeprefix(prefix): tensors[name] for name in own}
    aside += [name for name in tensors if name not in own]
    return Checkpoint(state, tuple(sets), taken, tuple(aside), names)


def class_names_of(path: Path) -> tuple[str, ...] | None:
    """The names of the classes that kept weights were trained on, from their metadata; None where they do not say."""
    return class_names_in(_metadata(path)) if path.suffix == ".safetensors" and path.is_file() else None


def _sets_of(content: object) -> dict[str, Mapping[str, Any]]:
    """The sets of weights in what a torch file holds, by key, those as trained first."""
    if not isinstance(content, Mapping):
        return {}
    if _is_state(content):
        return {"": content}
    found: dict[str, Mapping[str, Any]] = {}
    for name in (*RAW, *AVERAGED):
        inner = content.get(name)
        while isinstance(inner, Mapping) and not _is_state(inner):  # a wrapper in a wrapper
            inner = next((inner[key] for key in (*RAW, *AVERAGED) if isinstance(inner.get(key), Mapping)), None)
        if isinstance(inner, Mapping):
            found[name] = inner
    return found


def _is_state(content: Mapping[Any, Any]) -> bool:
    """Whether a mapping is a state dict: tensors by name, beside which only plain values may lie."""
    tensors = sum(isinstance(value, Tensor) for value in content.values())
    return tensors > 0 and all(isinstance(value, Tensor | str | int | float | bytes | None) for value in content.values())


def common_prefix(names: Iterable[str]) -> str:
    """The longest row of known prefixes, such as `module._orig_mod.`, with which all names begin."""
    names, prefix = list(names), ""
    while names and (more := next((p for p in PREFIXES if all(name.startswith(prefix + p) for name in names)), None)):
        prefix += more
    return prefix


def class_names_in(content: Mapping[Any, Any]) -> tuple[str, ...] | None:
    """The names of the classes, in their order, that a checkpoint or a safetensors file's metadata holds; None where it does not say."""
    meta = content.get("meta")
    for held in (content, meta if isinstance(meta, Mapping) else {}):
        by_key = {str(key).lower(): value for key, value in held.items()}
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
        with torch.serialization.safe_globals(list(harmless_types())):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no checkpoint make torch.load raise almost anything
        reason = first_line(error)
        raise InputError(f"weights: {path} cannot be read as plain tensors ({reason}); save model.state_dict()") from error


def _metadata(path: Path) -> Mapping[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"weights: {path}: not a safetensors file ({error})") from error


@dataclass(frozen=True)
class Input:
    """How a network that was trained here takes images: its normalisation, and the side that they are resized to."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int | None


def input_of(path: Path) -> Input | None:
    """How the network in a file takes images, as `save_student` wrote it; None where the file does not say, or says something else."""
    said = _metadata(path).get("input") if path.suffix == ".safetensors" else None
    try:
        values = json.loads(said or "null")
        return Input(tuple(map(float, values["mean"])), tuple(map(float, values["std"])), values["image_size"])
    except (ValueError, TypeError, KeyError, RecursionError):  # `input` is a word that other programs use too
        return None


def classes_of(state: Mapping[str, Tensor]) -> int | None:
    """How many classes a state dict's last two-dimensional weight scores, as a good guess; None where there is none."""
    known = [key for key in state if CLASSIFIER.match(key)]
    last = known or [key for key, value in state.items() if key.endswith("weight") and value.ndim == 2]
    return int(state[last[-1]].shape[0]) if last else None


def load_state(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict whole; raises InputError that says what is missing, unknown or of another shape.

    Prefixes that all of the model's names or all of the state's carry do not count, nor does a criterion within the model.
    """
    whole = model.state_dict()
    wanted, found = common_prefix(name for name in whole if not CRITERION.match(name)), common_prefix(state)
    own = {name.removeprefix(wanted): value for name, value in whole.items()}
    state = {name.removeprefix(found): value for name, value in state.items()}
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
    said = [f"{len(keys)} {what}: {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''}" for what, keys in problems.items() if keys]
    if said:
        raise InputError(f"weights: {where} do not fit the network: {'; '.join(said)}")
    model.load_state_dict({wanted + name: value for name, value in state.items()}, strict=False)


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
