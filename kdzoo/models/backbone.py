"""A frozen backbone by the words of the command line, outside of any bench."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdzoo.errors import InputError
from kdzoo.models.build import build_network
from kdzoo.models.checkpoints import read_checkpoint
from kdzoo.models.names import code_of
from kdzoo.models.network import Network, freeze
from kdzoo.models.normalisation import HOW_TO_NAME, normalisation_of
from kdzoo.models.request import parse_network, pretrained_by_default
from kdzoo.models.weights import file_sha256
from kdzoo.runs.spec import NetworkSpec


@dataclass(frozen=True)
class NamedBackbone:
    """What is known of a backbone by its words: its specification, and the file of its weights; None for published ones."""

    spec: NetworkSpec
    path: Path | None


def load_backbone(text: str, *, channels: int, side: int) -> Network:
    """A frozen network without its classifier: `NAME:pretrained@SIZE`, `NAME:FILE@norm=0.5`, or a name for its published weights.

    channels, side: of the images in 0..255 that it is given. Raises InputError for a start that is neither published nor a file, and
    for a file of which nothing says what images were normalised with when it was trained.
    """
    return build_backbone(text, channels=channels, side=side)[0]


def build_backbone(text: str, *, channels: int, side: int) -> tuple[Network, NamedBackbone]:
    """The same, and what its words name."""
    request = parse_network(pretrained_by_default(text))
    if request.start not in ("pretrained", "file"):
        raise InputError(f"{text}: expected NAME:pretrained or NAME:FILE")
    if unused := [word for word, value in (("@columns", request.columns), ("@layers", request.layers)) if value]:
        raise InputError(f"{text}: {' and '.join(unused)}: a backbone has no classes and is no network of texts; leave it out")
    spec = NetworkSpec(
        name=request.name,
        classes=0,
        start=request.start if request.path is None else f"file:{file_sha256(request.path)}",
        stem=request.stem,
        image_size=request.image_size,
        norm=None if request.norm is None else normalisation_of(request.norm),
        weights=None if request.path is None else read_checkpoint(request.path, key=request.weights).named_set,
        code=code_of(request.name),
    )
    network = build_network(spec, channels=channels, side=side, mean=[0.5], std=[0.5], seed=0, weights=request.path)
    if network.assumed_norm:
        raise InputError(f"{text}: its file does not say what images were normalised with; add @norm={HOW_TO_NAME}")
    return freeze(network), NamedBackbone(spec, request.path)
