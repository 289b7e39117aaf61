"""A network in a user's words: its name, where its weights come from, and its options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kdzoo.errors import InputError
from kdzoo.models.checkpoints import load_plain_tensors
from kdzoo.models.names import has_published_weights, is_known, network_names
from kdzoo.models.network_words import HF, RANDOM, SAVED, WEIGHT_FILES, existing_file, existing_folder, folder_in, is_file, is_path
from kdzoo.models.normalisation import AUTO, normalisation_of
from kdzoo.models.text_names import keep_architecture, weights_in, with_layers
from kdzoo.models.weights import metadata_of

Start = Literal["random", "pretrained", "file", "run", "saved"]
RUN_ID = re.compile(r"^[\w+]+-[0-9a-f]{12}$")


@dataclass(frozen=True)
class NetworkRequest:
    """A network in a user's words: its name, where its weights come from, its stem, the side of its input, its normalisation.

    norm: as `normalisation.normalisation_of` takes it, or `auto`. weights: which of several sets in its file; None for the usual.
    columns: which columns of targets it scores, with weights where it is to be trained; none for all, or what its weights tell.
    layers: how many of its layers a network of texts has; None for all.
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
    columns: tuple[str, ...] = ()
    layers: int | None = None


def parse_network(text: str) -> NetworkRequest:
    """`resnet34`, `resnet34:pretrained`, `resnet34:FILE`, `FILE`, a run's id, `saved:FILE`, `hf:FOLDER`; then options, each after an `@`.

    Options: `@small`, `@SIZE`, `@norm=NAME|MEAN/STD|auto`, `@weights=KEY`, `@columns=NAME+NAME`, `@layers=N`. A path may hold `@`, `:`
    and blanks, and begin with `~`: what names a file is a file. Ids of runs joined by `+` are an ensemble.
    The architecture of a FILE alone is read from its metadata or its name; raises InputError where neither has it.
    """
    if text.startswith(SAVED):
        return NetworkRequest(text, "", "saved", path=existing_file(text, text.removeprefix(SAVED)))
    words, options = _without_options(text)
    if words.startswith(HF):
        return _in_folder(text, words, options)
    name, colon, weights = words.partition(":")
    if is_path(words):
        path = existing_file(text, words)
        return NetworkRequest(text, architecture_of(path), "file", path=path, **options)
    if not colon:
        if all(RUN_ID.match(part) for part in ensemble_ids(words)):
            return NetworkRequest(text, "", "run", run_id=words, **options)
        return NetworkRequest(text, with_layers(name, options.get("layers")), "random", **options)
    if weights in ("random", "pretrained"):
        return NetworkRequest(text, name, weights, **options)  # type: ignore[arg-type]
    if RUN_ID.match(weights):
        return NetworkRequest(text, name, "run", run_id=weights, **options)
    return NetworkRequest(text, name, "file", path=existing_file(text, weights), **options)


def _in_folder(text: str, words: str, options: dict[str, Any]) -> NetworkRequest:
    """`hf:FOLDER`, with the folder's weights where it has some, or `hf:FOLDER:random`."""
    folder = existing_folder(text, folder_in(words))
    name = keep_architecture(folder, options.get("layers"))
    path = None if words.endswith(RANDOM) else weights_in(folder)
    return NetworkRequest(text, name, "random" if path is None else "file", path=path, **options)


def pretrained_by_default(text: str) -> str:
    """A network's bare name as `NAME:pretrained`, with its options, where there are published weights; any other words as they are."""
    if parse_network(text).start != "random" or ":" in _without_options(text)[0]:
        return text
    name, at, options = text.partition("@")
    if is_known(name) and not has_published_weights(name):
        return text
    return f"{name}:pretrained{at}{options}"


def _without_options(text: str) -> tuple[str, dict[str, Any]]:
    """The words for a network before its options, and the options; raises InputError for one that is none."""
    words: str = text
    options: dict[str, Any] = {}
    while "@" in words and not is_file(words) and not is_file(words.partition(":")[2]):
        before, _, last = words.rpartition("@")
        key, equals, value = last.partition("=")
        if last == "small":
            option: tuple[str, Any] = ("stem", last)
        elif last.isdecimal() and int(last) > 0:
            option = ("image_size", int(last))
        elif equals and key in ("norm", "weights") and value:
            option = (key, value)
        elif equals and key == "columns" and value:
            option = (key, tuple(value.split("+")))
        elif key == "layers" and value.isdecimal() and int(value) > 0:
            option = (key, int(value))
        elif "/" in last or last.endswith(WEIGHT_FILES):  # a path, which is reported as missing
            break
        else:
            raise InputError(
                f"network {text!r}: expected @small or @SIZE, @norm=NAME or MEAN/STD, @weights=KEY, @columns=NAME, @layers=N, got @{last}"
            )
        if option[0] in options:
            raise InputError(f"network {text!r}: @{last}: given twice")
        words, options = before, {**options, option[0]: option[1]}
    if options.get("norm") not in (None, AUTO):
        normalisation_of(options["norm"])
    return words, options


def ensemble_ids(text: str) -> list[str]:
    """The ids of `none-0123456789ab+hinton+at-0123456789ab`: a plus stands between them where it follows an id's digits."""
    return re.split(r"(?<=-[0-9a-f]{12})\+", text)


def architecture_of(path: Path) -> str:
    """The architecture whose weights a file holds, from its metadata or from the longest network name in its file name."""
    if path.suffix == ".safetensors":
        architecture = metadata_of(path).get("architecture")
        if architecture:
            return str(architecture)
    else:
        content = load_plain_tensors(path)
        architecture = content.get("arch", content.get("architecture")) if isinstance(content, Mapping) else None
        if isinstance(architecture, str):
            return architecture
    inside = [name for name in network_names() if re.search(rf"(^|[^a-z0-9]){re.escape(name)}([^a-z0-9]|$)", path.stem.lower())]
    if not inside:
        raise InputError(f"network {str(path)!r}: which architecture is it? Write NAME:{path}, for example resnet50:{path}")
    return max(inside, key=len)
