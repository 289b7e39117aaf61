"""From the specification of a network to the network: made by timm, its weights read, its outputs examined."""

from __future__ import annotations

import copy
import socket
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import constants as hub
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor, nn

from kdzoo.errors import InputError
from kdzoo.models.checkpoints import read_state
from kdzoo.models.examine import Head, examine
from kdzoo.models.names import code_of, make_known, published_config, require_network_name
from kdzoo.models.network import Network, heads_of
from kdzoo.models.state_names import common_prefix
from kdzoo.models.text import build_text_network
from kdzoo.models.text_names import text_architecture
from kdzoo.models.weights import classes_of, load_state, read_input_transform
from kdzoo.models.zoo._staged import StagedNetwork
from kdzoo.models.zoo.stem import small_stem
from kdzoo.runs.spec import NetworkSpec
from kdzoo.seeds import global_stream
from kdzoo.text import first_line

TRIAL_CONTRASTS = (0.25, 1.0, 2.0, 4.0)
"""of the noise in trial images, so that the outputs of an untrained network differ between them"""


def build_network(
    spec: NetworkSpec,
    *,
    channels: int,
    side: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    head: Head = "kept",
    weights: Path | None = None,
    module: nn.Module | None = None,
) -> Network:
    """The network of a specification for images of `channels` channels and side `side`.

    mean, std: of the data, used unless the network is pretrained and brings its own. weights: the file that a start
    other than `random` and `pretrained` names. module: the network itself, copied, where it was given from Python.
    head: `kept` for a network that is used as it is, `fresh` for one that is about to be trained, whose classifier may
    then start at random where its weights were made for other classes.
    Raises InputError for an unknown name, weights that do not fit, a pretrained network of other classes, and a user's
    network whose code is not the one that was planned.
    """
    if module is None and spec.code is not None and spec.code != code_of(spec.name):
        raise InputError(f"network {spec.name!r}: planned in version {spec.code}, but its code is now version {code_of(spec.name)}")
    kind, _, owner = spec.start.partition(":")
    state: Mapping[str, Tensor] | None = None
    if weights is not None:
        state = read_state(weights, owner if kind == "run" else None, spec.weights if kind == "file" else None)
    transform = None if weights is None else read_input_transform(weights)
    assumes_norm = transform is None and spec.norm is None and (state is not None or module is not None)
    fresh = False
    model_channels = channels if state is None else _channels_of(spec.name, state, channels)
    image_size = spec.image_size or (transform.image_size if transform else None)
    if module is None and (architecture := text_architecture(spec.name)):
        return build_text_network(
            spec, architecture, length=image_size, seed=seed, fresh_head=head == "fresh", state=state, where=str(weights)
        )
    with global_stream(seed, "init"):
        if module is not None:
            model = copy.deepcopy(module)
        else:
            model = _create(spec, model_channels, image_size or side, head)
            if spec.stem == "small":
                small_stem(model, spec.name)
    if spec.start == "pretrained":
        config = cast(dict[str, Any], model.pretrained_cfg)
        mean, std, model_channels = config["mean"], config["std"], 3
        fresh = spec.classes != 0 and config["num_classes"] != spec.classes
        if image_size is None and config.get("fixed_input_size"):
            image_size = config["input_size"][-1]
    elif transform is not None:
        mean, std = transform.mean, transform.std
    if spec.norm is not None:
        mean, std = _norm_of_channels(spec, model_channels)
    if state is not None:
        state = model.named_as_here(state) if isinstance(model, StagedNetwork) else state
        if spec.classes == 0:
            state = _without_head(model, state)
        elif head == "fresh" and (classes_of(state) not in (None, spec.classes) or _lacks_head(model, state)):
            state, fresh = {**state, **_head_of(model)}, True
        load_state(model, state, str(weights))
    network = Network(model, channels=model_channels, mean=mean, std=std, image_size=image_size)
    network.assumed_norm = assumes_norm
    network.fresh_head = fresh
    network.headless = spec.classes == 0
    name = type(network.model).__name__ if spec.name.startswith("module:") else spec.name
    examine(network, trial_images(model_channels, image_size or side), name=name, classes=spec.classes, head=head)
    return network


def _norm_of_channels(spec: NetworkSpec, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and deviation that a specification names; raises InputError where they are of other channels."""
    assert spec.norm is not None
    if len(spec.norm.mean) not in (1, channels):
        raise InputError(f"{spec.name}: norm: expected one mean or {channels} (one per channel), got {len(spec.norm.mean)}")
    return spec.norm.mean, spec.norm.std


def _channels_of(name: str, state: Mapping[str, Tensor], channels: int) -> int:
    """The channels that weights take: grey images go to a network of three, repeated; anything else must fit."""
    config = published_config(name)
    first = state.get(f"{config.first_conv}.weight") if config is not None else None
    return 3 if channels == 1 and first is not None and first.ndim == 4 and first.shape[1] == 3 else channels


def _head_of(model: nn.Module) -> dict[str, Tensor]:
    """The classifier's own entries of a timm network's state."""
    heads = heads_of(model)
    names = tuple(f"{name}." for name, module in model.named_modules() if any(module is head for head in heads))
    return {key: value for key, value in model.state_dict().items() if key.startswith(names)}


def _without_head(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a backbone without those of the classifier that networks of its kind have where a headless one has none."""
    heads = heads_of(model) if hasattr(model, "get_classifier") else []
    prefix = common_prefix(state)
    names = tuple(f"{prefix}{name}." for name, module in model.named_modules() if any(module is head for head in heads))
    return {key: value for key, value in state.items() if not (names and key.startswith(names))}


def _lacks_head(model: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether weights are those of a backbone alone, without any entry of the model's classifier."""
    head = _head_of(model) if hasattr(model, "get_classifier") else {}
    return bool(head) and not any(key.endswith(tuple(head)) for key in state)


def creation_options(spec: NetworkSpec, channels: int, side: int) -> dict[str, Any]:
    """What timm.create_model is called with for a network of a specification, beside its name and `pretrained`."""
    pretrained = spec.start == "pretrained"
    config = published_config(spec.name)
    options: dict[str, Any] = {"num_classes": spec.classes, "in_chans": 3 if pretrained else channels}
    if config is not None and config.fixed_input_size and not (pretrained and spec.image_size is None):
        options["img_size"] = side
    return options


def _create(spec: NetworkSpec, channels: int, side: int, head: Head) -> nn.Module:
    require_network_name(spec.name)
    make_known(spec.name)
    import timm

    pretrained = spec.start == "pretrained"
    config = published_config(spec.name)
    options = creation_options(spec, channels, side)
    if pretrained and head == "kept" and config is not None and spec.classes not in (0, config.num_classes):
        raise InputError(
            f"{spec.name}: its pretrained weights are for {config.num_classes} classes, not {spec.classes}: a new head would "
            "start at random. Fine-tune it first (kdzoo train), or give weights for these classes (NAME:FILE)"
        )
    try:
        with _offline_if_hub_unreachable():
            return timm.create_model(spec.name, pretrained=pretrained, **options)
    except InputError:
        raise
    except Exception as error:
        if not pretrained:
            raise InputError(f"network {spec.name}: cannot be built for {side}x{side} images: {type(error).__name__}: {error}") from error
        instead = f"give a file ({spec.name}:FILE) or start at random ({spec.name}:random)"
        why = "not in the cache, and the model hub cannot be reached"
        if not isinstance(error, LocalEntryNotFoundError):  # whose own words are long, and the same for every network
            why = f"{type(error).__name__}: {first_line(error).rstrip('.')}"
        raise InputError(f"{spec.name}: its pretrained weights are not available offline ({why}); {instead}") from error


@contextmanager
def _offline_if_hub_unreachable() -> Iterator[None]:
    """Go offline where the model hub's host does not resolve: its own retries take minutes."""
    host = urllib.parse.urlparse(hub.ENDPOINT).hostname
    before = hub.HF_HUB_OFFLINE
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def trial_images(channels: int, side: int) -> Tensor:
    """Random images (N, C, H, W) as a model itself takes them, of several contrasts."""
    contrasts = torch.tensor(TRIAL_CONTRASTS).view(-1, 1, 1, 1)
    return contrasts * torch.randn(len(contrasts), channels, side, side, generator=torch.Generator().manual_seed(0))


def draw_weights(model: nn.Module, seed: int) -> None:
    """Start every layer that can (`reset_parameters`) at random anew, in place."""
    with global_stream(seed, "init"):
        for part in model.modules():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()  # type: ignore[operator]
