"""Networks of texts by name: what a folder in Hugging Face's form holds besides weights, kept in the cache folder under its digest.

`hf:FOLDER` names such a folder on this machine. The network's own name, `bert_6x384_0123456789ab`, stands in runs: the kind, how many
layers of which width, and a digest of config.json and tokenizer.json, which every process finds in the cache folder by it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdzoo.errors import InputError
from kdzoo.files import cache_folder, read_text
from kdzoo.models.network_words import HF
from kdzoo.runs.atomic import write_bytes

NAME = re.compile(r"([a-z][a-z0-9]*)_([1-9]\d*)x([1-9]\d*)_([0-9a-f]{12})")
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
LAYERS = ("num_hidden_layers", "n_layers")
WIDTH = ("hidden_size", "dim")
NOT_STRUCTURE = ("_name_or_path", "architectures", "transformers_version", "id2label", "label2id", "dtype", "torch_dtype", "use_cache")
"""keys of config.json that say nothing of what the network computes"""


@dataclass(frozen=True)
class TextArchitecture:
    """A network of texts: how many layers it has, and the folder with its config.json and tokenizer.json."""

    name: str
    layers: int
    folder: Path

    def config(self) -> dict[str, Any]:
        """Its configuration, with its own number of layers."""
        config: dict[str, Any] = json.loads(read_text(self.folder / CONFIG))
        return {**config, _key(config, LAYERS): self.layers}


def keep_architecture(folder: Path, layers: int | None = None) -> str:
    """Keep what a folder says of its network in the cache folder; the network's name, with another number of layers where one is given.

    Raises InputError for a folder without config.json or tokenizer.json, and for more layers than it has.
    """
    files = {name: folder / name for name in (CONFIG, TOKENIZER)}
    if missing := [name for name, file in files.items() if not file.is_file()]:
        raise InputError(f"network {HF}{folder}: no {' and no '.join(missing)}; expected a folder that save_pretrained has written")
    try:
        config = json.loads(read_text(files[CONFIG]))
        config = {key: value for key, value in sorted(config.items()) if key not in NOT_STRUCTURE}
        kind, depth, width = (str(config["model_type"]), int(config[_key(config, LAYERS)]), int(config[_key(config, WIDTH)]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"network {HF}{folder}: its config.json does not say model_type, layers and width ({error})") from error
    content = {CONFIG: json.dumps(config, indent=2).encode(), TOKENIZER: files[TOKENIZER].read_bytes()}
    digest = hashlib.sha256(b"\0".join(content.values())).hexdigest()[:12]
    for name, data in content.items():
        if not (place := _folder(digest) / name).is_file():
            write_bytes(place, data)
    return with_layers(f"{re.sub('[^a-z0-9]', '', kind.lower())}_{depth}x{width}_{digest}", layers)


def with_layers(name: str, layers: int | None) -> str:
    """The name of the same network with another number of layers; raises InputError for more than it has."""
    match = NAME.fullmatch(name)
    if layers is None or match is None:
        if layers is not None:
            raise InputError(f"network {name!r}: @layers={layers}: expected a network of texts, hf:FOLDER or one by its name")
        return name
    if not 1 <= layers <= int(match[2]):
        raise InputError(f"network {name!r}: @layers={layers}: expected 1 to {match[2]}")
    return f"{match[1]}_{layers}x{match[3]}_{match[4]}"


def text_architecture(name: str) -> TextArchitecture | None:
    """A network of texts by its name; None for any other name. Raises InputError where its folder has not been named here before."""
    match = NAME.fullmatch(name)
    if match is None:
        return None
    folder = _folder(match[4])
    if not (folder / CONFIG).is_file() or not (folder / TOKENIZER).is_file():
        raise InputError(f"network {name!r}: its {CONFIG} and {TOKENIZER} are not in the cache; name their folder once: {HF}FOLDER")
    return TextArchitecture(name, int(match[2]), folder)


def is_text_network(name: str) -> bool:
    """Whether a network takes texts, by its name; of an ensemble each one."""
    return all(NAME.fullmatch(part) for part in name.split("+"))


def weights_in(folder: Path) -> Path | None:
    """The file of weights in a folder in Hugging Face's form."""
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)


def _folder(digest: str) -> Path:
    return cache_folder() / "text-networks" / digest


def _key(config: Mapping[str, Any], names: Iterable[str]) -> str:
    """Under which of several names a configuration has an entry."""
    return next(name for name in names if name in config)
