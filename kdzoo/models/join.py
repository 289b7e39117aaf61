"""Several teachers without classes joined into one, kept in a file from which any process builds it again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdzoo.errors import InputError, collect_problems, raise_if_any
from kdzoo.models.agglomerate import AGGLOMERATE, Agglomerate
from kdzoo.models.backbone import NamedBackbone, build_backbone
from kdzoo.models.build import build_network, trial_images
from kdzoo.models.examine import examine
from kdzoo.models.licences import file_licence, pretrained_licence
from kdzoo.models.network import Network
from kdzoo.models.normalisation import USUAL
from kdzoo.models.phis import Standardisation, standardise
from kdzoo.models.weights import load_state, metadata_of, read_deployed, save_student
from kdzoo.runs.licences import Licensed, list_text
from kdzoo.runs.output_files import new_output_file
from kdzoo.runs.spec import NetworkSpec, Normalisation

ROWS = 100
"""images that the teachers see at once while their embeddings are measured"""
MEMBERS = "members"
"""the key of a file's metadata that says which networks it has, and for which images they were built"""


@torch.no_grad()
def save_joined(teachers: Sequence[str], images: Tensor, path: Path) -> Network:
    """Write one frozen teacher out of several to a file, with the weights of all, for `--teacher FILE`; the teacher.

    teachers: in the words of the command line, `NAME:pretrained@SIZE`, `NAME:FILE@norm=0.5`; a name alone means its published weights.
    images: (N, C, H, W) uint8, on whose embeddings the scales are measured. Raises InputError for a path that exists, for what names no
    weights, for fewer than two teachers, and for a width without a Hadamard matrix.
    """
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: expected a name that ends in .safetensors")
    file = new_output_file(path)
    if len(teachers) < 2:
        raise InputError(f"teachers: expected two or more to join, got {len(teachers)}")
    problems: list[str] = []
    backbones: list[tuple[Network, NamedBackbone]] = []
    channels, side = images.shape[1], images.shape[2]
    for text in teachers:
        with collect_problems(problems):
            backbones.append(build_backbone(text, channels=channels, side=side))
    raise_if_any(problems)
    networks = [network for network, _ in backbones]
    scales = [standardise(torch.cat([network.logits(part) for part in torch.split(images, ROWS)])) for network in networks]
    network = _as_network(Agglomerate(networks, scales), channels, side, None, apart=True)
    members = [{"channels": one.channels, "spec": _as_member(one, words.spec).model_dump(mode="json")} for one, words in backbones]
    metadata = {
        "architecture": AGGLOMERATE,
        MEMBERS: json.dumps({"channels": channels, "side": side, "networks": members, "heads": "each"}),
        "licences": list_text(_licence_of(words) for _, words in backbones),
    }
    save_student(network, file, metadata)
    return network


def _as_member(network: Network, spec: NetworkSpec) -> NetworkSpec:
    """One of the networks of a file, from which it is built again before the weights are read into it."""
    norm = Normalisation(mean=tuple(network.mean.flatten().tolist()), std=tuple(network.std.flatten().tolist()))
    return spec.model_copy(update={"start": "random", "weights": None, "image_size": network.image_size, "norm": norm})


def _licence_of(words: NamedBackbone) -> Licensed:
    """A network that teaches, with the licence of its weights."""
    name, licence = pretrained_licence(words.spec.name) if words.path is None else (words.path.name, file_licence(words.path))
    return Licensed("teacher", name, licence)


def read_joined(path: Path, *, channels: int, side: int, image_size: int | None = None) -> Network:
    """The teacher in a file that `save_joined` wrote, for images in 0..255 of `channels` channels and side `side`.

    image_size: the side that images are resized to before any of its networks sees them. Raises InputError for any other file, and for
    images of other channels.
    """
    layout = _read_layout(path)
    if layout.channels != channels:
        raise InputError(f"{path}: its teachers were joined on images of {layout.channels} channels, got {channels}")
    networks = [build_network(spec, channels=taken, side=layout.side, mean=[0.5], std=[0.5], seed=0) for taken, spec in layout.networks]
    state, _ = read_deployed(path)
    blank = [_blank(state, place, path) for place in range(len(networks))]
    model = Agglomerate(networks, blank)
    load_state(model, state, str(path))
    return _as_network(model, channels, image_size or side, image_size, apart=layout.apart)


@dataclass(frozen=True)
class _Layout:
    """Which networks a file has, each with the channels that it takes, and on images of how many channels and which side it was made.

    apart: whether a student learns each by a head of its own, or, under a file of earlier versions, all by one.
    """

    channels: int
    side: int
    networks: tuple[tuple[int, NetworkSpec], ...]
    apart: bool


def _read_layout(path: Path) -> _Layout:
    try:
        content = json.loads(metadata_of(path)[MEMBERS])
        networks = tuple((int(one["channels"]), NetworkSpec.model_validate(one["spec"])) for one in content["networks"])
        return _Layout(int(content["channels"]), int(content["side"]), networks, content.get("heads") == "each")
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: expected a file of `kdzoo teachers join`; it does not say which networks it has") from error


def _blank(state: dict[str, Tensor], place: int, path: Path) -> Standardisation:
    """A standardisation of the width that a file has for one of its networks, to read the numbers into."""
    if (mean := state.get(f"mean_{place}")) is None or mean.ndim != 1:
        raise InputError(f"{path}: has no mean_{place} (D,), the mean of the embeddings of one of its networks")
    return Standardisation(torch.zeros(len(mean)), torch.eye(len(mean)), 1.0)


def _as_network(model: Agglomerate, channels: int, side: int, image_size: int | None, *, apart: bool) -> Network:
    """The joined teachers as a network that takes images as they are, since each of them normalises and resizes for itself.

    apart: whether a student learns the embedding of each by a head of its own.
    """
    pixels = USUAL["pixels"]
    network = Network(model.eval().requires_grad_(False), channels=channels, mean=pixels.mean, std=pixels.std, image_size=image_size)
    network.headless = True
    network.joined = model.widths if apart else ()
    examine(network, 64 * trial_images(channels, side).abs(), name=AGGLOMERATE, classes=0, head="kept")
    return network
