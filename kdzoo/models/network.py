"""The one door to timm: any network gives what methods read in one forward."""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
import re
import socket
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, cast

import timm
import torch
from huggingface_hub import constants as hub
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.plugins import modules_beside
from kdzoo.contract.shapes import Shapes, StageShape
from kdzoo.data.preprocess import normalise
from kdzoo.errors import InputError
from kdzoo.models import generic
from kdzoo.models.names import code_of, is_known, ours_or_timm
from kdzoo.models.weights import classes_of, input_of, load_state, read_state
from kdzoo.models.zoo._staged import StagedNetwork
from kdzoo.models.zoo.stem import small_stem
from kdzoo.runs.spec import NetworkSpec, Normalisation
from kdzoo.seeds import global_stream
from kdzoo.text import first_line

Head = Literal["kept", "fresh"]
Gives = Literal["scores", "probabilities", "log-probabilities"]
SUMS_TO_ONE = 1e-5
"""how far from 1 the sum of a row of probabilities in float32 may be"""
TRIAL_CONTRASTS = (0.25, 1.0, 2.0, 4.0)
"""of the noise in trial images, so that an untrained network says different things of them"""
ACTIVATED = ("ResNet", "RegNet")
"""timm's families whose stages end with the activation of their last block"""
STEM = re.compile(r"^(stem|conv_stem|act1|act2|bn1|conv_?0|conv1|level0|features\.(norm0|conv0|conv1_1)|conv2d_2b|Conv2d_2b)")
"""the first entries of feature_info that are a stem's output, not a stage's"""


@dataclass(frozen=True)
class NetworkCost:
    """parameters, and multiply-accumulates of one image (convolutions, matrix products, attention)."""

    parameters: int
    macs: int


class Network(nn.Module):
    """A model that takes images in 0..255, normalises them for itself, and gives Outputs.

    `model` is the wrapped network; only its weights are the network's. Images (B, C, H, W), uint8 or float, are scaled
    to [0, 1], resized to `image_size` where that is set, repeated to three channels where the model wants three, and
    normalised with `mean` and `std`. One code path serves every need, so numbers never depend on what else was asked.
    Where the model `gives` probabilities, the logits are their logarithm: class scores up to a constant in each row.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: nn.Module, *, channels: int, mean: Sequence[float], std: Sequence[float], image_size: int | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.channels = channels
        self.image_size = image_size
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.taps: list[int] = []
        self.layout = generic.Layout()
        self.gives: Gives = "scores"
        self.assumed_norm = False
        """whether nobody said what the weights were trained under, so that the data's own mean and deviation stand in"""
        self.fresh_head = False
        """whether the classifier replaces one of other classes and starts at random"""
        self.compiled_for: int | None = None
        """the batch size for which all below the head is run compiled in training; None for never"""

    def forward(self, images: Tensor, need: Need) -> Outputs:
        """One forward, with what was asked for and nothing else."""
        x = self.normalise(images)
        with ExitStack() as hooks:
            embedded = _Inputs(hooks, [self.classifier] if Need.EMBEDDING in need else [])
            before = _Inputs(hooks, self._activations() if Need.PREACT in need else [])
            scored = _Results(hooks, _heads(self.model) if Need.DISTILLED in need else [])
            logits, stages = self._staged(x) if self.is_timm else generic.run(self.model, x, self.layout.stages)
        if self.gives == "probabilities":
            logits = log_of(logits)
            scored.seen = [log_of(seen) for seen in scored.seen]
        given = [stage if into is None else into for stage, into in zip(stages, before.seen, strict=True)] if before.seen else None
        values: dict[Need, Any] = {
            Need.LOGITS: scored.seen[0] if Need.DISTILLED in need else logits,
            Need.EMBEDDING: None if not embedded.seen or embedded.seen[0] is None else embedded.seen[0].flatten(1),
            Need.STAGES: stages,
            Need.PREACT: given,
            Need.DISTILLED: scored.seen[-1] if scored.seen else None,
            Need.MEMBERS: [logits],
        }
        return Outputs.of({n: value for n, value in values.items() if n in need} | self.parts(need), owner="network")

    def parts(self, need: Need) -> dict[Need, Any]:
        """What is read of the network that takes no forward."""
        found: dict[Need, Any] = {Need.CLASSIFIER: self.whole_classifier()} if Need.CLASSIFIER in need else {}
        return found | ({Need.NETWORK: Probed(self)} if Need.NETWORK in need else {})

    def logits(self, images: Tensor) -> Tensor:
        """Class scores (B, K)."""
        return self(images, Need.LOGITS).logits  # type: ignore[no-any-return]

    @property
    def is_timm(self) -> bool:
        return hasattr(self.model, "forward_intermediates") and hasattr(self.model, "forward_head")

    @property
    def classifier(self) -> nn.Module:
        """The linear layer (or 1x1 convolution) whose input is the embedding, the first of several; Identity where there is none."""
        if not self.is_timm:
            return nn.Identity() if self.layout.head is None else self.model.get_submodule(self.layout.head)
        linear = [module for module in _heads(self.model)[0].modules() if isinstance(module, nn.Linear | nn.Conv2d)]
        return linear[-1] if linear else nn.Identity()

    @property
    def hidden_layers(self) -> list[nn.Linear | nn.Conv2d]:
        """The linear and convolutional layers but for the classifiers, whose units are hidden ones."""
        last = _heads(self.model) if self.is_timm else [self.classifier]
        classifiers = {id(module) for head in last for module in head.modules()}
        return [module for module in self.model.modules() if isinstance(module, nn.Linear | nn.Conv2d) and id(module) not in classifiers]

    @property
    def heads(self) -> int:
        """How many classifiers a timm network has."""
        return len(_heads(self.model))

    @property
    def has_distillation_token(self) -> bool:
        return self.is_timm and hasattr(self.model, "head_dist") and len(_heads(self.model)) == 2

    @property
    def gives_preactivations(self) -> bool:
        return self.is_timm and all(isinstance(self._entry(position), dict) for position in self.taps)

    def _entry(self, position: int) -> dict[str, Any] | None:
        """What is known of the activation that ends a stage: its `activation` is a module's name, or None for a signed map."""
        info = self.model.feature_info
        entries: Sequence[dict[str, Any]] = info if isinstance(info, list) else info.info  # type: ignore[union-attr,assignment]
        entry = entries[position] if position < len(entries) else {}
        if "activation" in entry:
            return entry
        if type(self.model).__name__ not in ACTIVATED or not entry:
            return None
        *_, block = self.model.get_submodule(entry["module"]).children()
        name, _ = max((name, child) for name, child in block.named_children() if re.fullmatch(r"act\d", name))
        last = next(label for label, module in self.model.named_modules() if module is block)
        return {"activation": f"{last}.{name}"}

    def _activations(self) -> list[nn.Module | None]:
        entries = [cast(dict[str, Any], self._entry(position)) for position in self.taps]
        return [None if entry["activation"] is None else self.model.get_submodule(entry["activation"]) for entry in entries]

    def whole_classifier(self) -> nn.Module:
        """The module that maps the embedding (B, D) to the logits (B, K)."""
        if self.is_timm and len(_heads(self.model)) > 1:
            raise InputError(f"{type(self.model).__name__}: has several classifiers, and this method reads a single one")
        found = self.classifier
        if isinstance(found, nn.Conv2d):
            return nn.Sequential(nn.Unflatten(1, (found.in_channels, 1, 1)), found, nn.Flatten())
        return found

    def normalise(self, images: Tensor) -> Tensor:
        if images.shape[1] == 1 and self.channels == 3:
            images = images.expand(-1, 3, -1, -1)
        return normalise(images, self.mean, self.std, self.image_size)

    def normalises_with(self, norm: Normalisation) -> bool:
        """Whether this is the normalisation that the network uses, to four decimals."""
        pairs = ((self.mean, norm.mean), (self.std, norm.std))
        return all(torch.allclose(own.flatten().cpu(), torch.tensor(part), rtol=0, atol=1e-4) for own, part in pairs)

    def _staged(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        run = compiled_body() if self.training and len(x) == self.compiled_for else body
        final, maps = run(self.model, x, self.taps)
        return self.model.forward_head(final), list(maps)  # type: ignore[operator]


def log_of(probabilities: Tensor) -> Tensor:
    """The logarithm of probabilities, in float32 at least; that of the smallest normal number for 0."""
    wide = probabilities.float()
    return wide.clamp(min=torch.finfo(wide.dtype).tiny).log()


def body(model: nn.Module, x: Tensor, taps: list[int]) -> tuple[Tensor, list[Tensor]]:
    """All of a network below its head: the final map, and those of the stages."""
    final, maps = model.forward_intermediates(x, indices=taps)  # type: ignore[operator]
    return final, maps


@cache
def compiled_body() -> Callable[[nn.Module, Tensor, list[int]], tuple[Tensor, list[Tensor]]]:
    """`body` compiled for each architecture and shape that it meets; networks of one architecture share what was compiled."""
    return torch.compile(body, dynamic=False)


class _Inputs:
    """The first inputs that modules see while hooks hold, in the order of the modules; None for None."""

    def __init__(self, hooks: ExitStack, modules: Sequence[nn.Module | None]) -> None:
        self.seen: list[Tensor | None] = [None] * len(modules)
        for position, module in enumerate(modules):
            if module is not None:
                hooks.callback(module.register_forward_pre_hook(self._keep(position)).remove)

    def _keep(self, position: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
            # an activation that works in place would change what it was given
            self.seen[position] = args[0].clone() if getattr(module, "inplace", False) else args[0]

        return keep


class _Results:
    """The outputs of modules while hooks hold, in the order of the modules."""

    def __init__(self, hooks: ExitStack, modules: Sequence[nn.Module]) -> None:
        self.seen: list[Tensor] = [torch.empty(0)] * len(modules)
        for position, module in enumerate(modules):
            hooks.callback(module.register_forward_hook(self._keep(position)).remove)

    def _keep(self, position: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(module: nn.Module, args: Any, output: Tensor) -> None:
            self.seen[position] = output

        return keep


@dataclass(frozen=True)
class Probed:
    """The network as methods see it that look at gradients or at other inputs (signals.Probeable)."""

    network: Network
    stages: tuple[int, ...] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        return self.network.logits(images)

    def outputs(self, images: Tensor, need: Need) -> Outputs:
        given: Outputs = self.network(images, need)
        return given.only(need, self.stages)

    def picking(self, stages: Sequence[int]) -> Probed:
        return Probed(self.network, tuple(stages))


class Learner(nn.Module):
    """A network that learns beside the student, as images -> logits."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.logits(images)


def draw_weights(model: nn.Module, seed: int) -> None:
    """Start every layer that can (`reset_parameters`) at random anew, in place."""
    with global_stream(seed, "init"):
        for part in model.modules():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()  # type: ignore[operator]


class Frozen(Network):
    """A network that stays in evaluation mode and takes no gradient."""

    def train(self, mode: bool = True) -> Self:
        return super().train(False)


class Ensemble(Frozen):
    """Networks that teach together: the logits are the logarithm of their mean probabilities; all else is the first's."""

    def __init__(self, networks: Sequence[Network]) -> None:
        nn.Module.__init__(self)
        self.model = nn.ModuleList(networks)
        first = networks[0]
        self.channels, self.image_size, self.taps, self.layout = first.channels, first.image_size, first.taps, first.layout
        self.gives = "scores"  # the members take the logarithms of theirs themselves
        self.assumed_norm = False
        self.fresh_head = False
        self.compiled_for = None

    def forward(self, images: Tensor, need: Need) -> Outputs:
        first, *others = cast(Sequence[Network], self.model)
        given: Outputs = first(images, need | Need.LOGITS)
        members = [given.logits, *(network.logits(images) for network in others)]
        mean = torch.stack([logits.float().log_softmax(1) for logits in members]).logsumexp(0) - math.log(len(members))
        return given.saying({Need.LOGITS: mean, Need.MEMBERS: members} | self.parts(need)).only(need)

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return cast(Network, self.model[0]).mean  # type: ignore[index]

    @property
    def is_timm(self) -> bool:
        return False

    @property
    def gives_preactivations(self) -> bool:
        return cast(Network, self.model[0]).gives_preactivations  # type: ignore[index]

    def whole_classifier(self) -> nn.Module:
        return cast(Network, self.model[0]).whole_classifier()  # type: ignore[index]


def _heads(model: nn.Module) -> list[nn.Module]:
    """A timm network's classifiers: one, or several whose scores it averages."""
    found = model.get_classifier()  # type: ignore[operator]
    return list(found) if isinstance(found, tuple | list | nn.ModuleList) else [found]


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
    trained = None if weights is None else input_of(weights)
    assumed = trained is None and spec.norm is None and (state is not None or module is not None)
    fresh = False
    takes = channels if state is None else _channels_of(spec.name, state, channels)
    image_size = spec.image_size or (trained.image_size if trained else None)
    with global_stream(seed, "init"):
        if module is not None:
            model = copy.deepcopy(module)
        else:
            model = _create(spec, takes, image_size or side, head)
            if spec.stem == "small":
                small_stem(model, spec.name)
    if spec.start == "pretrained":
        config = cast(dict[str, Any], model.pretrained_cfg)
        mean, std, takes = config["mean"], config["std"], 3
        fresh = config["num_classes"] != spec.classes
        if image_size is None and config.get("fixed_input_size"):
            image_size = config["input_size"][-1]
    elif trained is not None:
        mean, std = trained.mean, trained.std
    if spec.norm is not None:
        mean, std = _fitting(spec, takes)
    if state is not None:
        state = model.named_as_here(state) if isinstance(model, StagedNetwork) else state
        if head == "fresh" and classes_of(state) not in (None, spec.classes):
            state, fresh = {**state, **_head_of(model)}, True
        load_state(model, state, str(weights))
    network = Network(model, channels=takes, mean=mean, std=std, image_size=image_size)
    network.assumed_norm = assumed
    network.fresh_head = fresh
    _tap(network, takes, image_size or side, spec, head)
    return network


def _fitting(spec: NetworkSpec, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and deviation that a specification names; raises InputError where they are of other channels."""
    assert spec.norm is not None
    if len(spec.norm.mean) not in (1, channels):
        raise InputError(f"{spec.name}: norm: expected one mean or {channels} (one per channel), got {len(spec.norm.mean)}")
    return spec.norm.mean, spec.norm.std


def _channels_of(name: str, state: Mapping[str, Tensor], channels: int) -> int:
    """The channels that weights take: grey images go to a network of three, repeated; anything else must fit."""
    config = timm.get_pretrained_cfg(name) if is_known(name) else None
    first = state.get(f"{config.first_conv}.weight") if config is not None else None
    return 3 if channels == 1 and first is not None and first.ndim == 4 and first.shape[1] == 3 else channels


def _head_of(model: nn.Module) -> dict[str, Tensor]:
    """The classifier's own entries of a timm network's state."""
    heads = _heads(model)
    names = tuple(f"{name}." for name, module in model.named_modules() if any(module is head for head in heads))
    return {key: value for key, value in model.state_dict().items() if key.startswith(names)}


def creation_options(spec: NetworkSpec, channels: int, side: int) -> dict[str, Any]:
    """What timm.create_model is called with for a network of a specification, beside its name and `pretrained`."""
    pretrained = spec.start == "pretrained"
    config = timm.get_pretrained_cfg(spec.name)
    options: dict[str, Any] = {"num_classes": spec.classes, "in_chans": 3 if pretrained else channels}
    if config is not None and config.fixed_input_size and not (pretrained and spec.image_size is None):
        options["img_size"] = side
    return options


def _create(spec: NetworkSpec, channels: int, side: int, head: Head) -> nn.Module:
    ours_or_timm(spec.name)
    pretrained = spec.start == "pretrained"
    config = timm.get_pretrained_cfg(spec.name)
    wanted = creation_options(spec, channels, side)
    if pretrained and head == "kept" and config is not None and config.num_classes != spec.classes:
        raise InputError(
            f"{spec.name}: its pretrained weights are for {config.num_classes} classes, not {spec.classes}: a new head would "
            "start at random. Fine-tune it first (kdzoo train), or give weights for these classes (NAME:FILE)"
        )
    try:
        with _impatient_hub():
            return timm.create_model(spec.name, pretrained=pretrained, **wanted)
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
def _impatient_hub() -> Iterator[None]:
    """Where the model hub's host cannot be found, look into its cache alone: its own retries take minutes."""
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


def _tap(network: Network, channels: int, side: int, spec: NetworkSpec, head: Head) -> None:
    """Examine a network of a specification by a forward of random images."""
    name = type(network.model).__name__ if spec.name.startswith("module:") else spec.name
    contrasts = torch.tensor(TRIAL_CONTRASTS).view(-1, 1, 1, 1)
    x = contrasts * torch.randn(len(contrasts), channels, side, side, generator=torch.Generator().manual_seed(0))
    examine(network, x, name=name, classes=spec.classes, head=head)


def examine(network: Network, x: Tensor, *, name: str, classes: int | None, head: Head) -> None:
    """Find which outputs are stages (the last map of each resolution, the stem left out), and what the model gives.

    x: what the model itself takes, several samples. classes: how many class scores are expected; None for any number.
    Raises InputError for a model that gives no class scores of the classes that are asked for, and for one that is about
    to be trained and ends in a softmax.
    """
    if network.is_timm:
        _find_taps(network, x)
        given = _trial(network, lambda: network._staged(x)[0], name)
    else:
        network.layout = _trial(network, lambda: generic.layout(network.model, lambda: network.model(x)), name)
        given = generic.scores_of(_trial(network, lambda: network.model(x), name), name)
    _refuse_shape(given, classes, name)
    network.gives = what_is_given(given)
    if head == "kept":
        return
    if network.gives == "probabilities":
        raise InputError(f"{name}: its forward ends in a softmax; a network that is trained must return class scores: remove the softmax")
    if not network.is_timm:
        learner = copy.deepcopy(network)
        in_training = _trial(learner, lambda: learner.model.train()(x), name)
        _refuse_shape(generic.scores_of(in_training, name), classes, name)


def _find_taps(network: Network, x: Tensor) -> None:
    """Which of a timm network's outputs are its stages; of a network of the literature all that the literature taps."""
    info = network.model.feature_info
    entries: Sequence[dict[str, Any]] = info if isinstance(info, list) else info.info  # type: ignore[union-attr,assignment]
    maps = _quietly(network, lambda: network.model.forward_intermediates(x[:2], intermediates_only=True))  # type: ignore[operator]
    if isinstance(network.model, StagedNetwork):
        network.taps = list(range(len(maps)))
        return
    names = [str(entry.get("module", "")) for entry in entries]
    found = [
        (position, tuple(m.shape[-2:]))
        for position, m in enumerate(maps)
        if m.ndim == 4 and not (position < len(names) and STEM.match(names[position]))
    ]
    network.taps = [p for p, size in found if not any(later > p and s == size for later, s in found)] or [len(maps) - 1]


def _trial(network: Network, act: Callable[[], Any], name: str) -> Any:
    """A trial forward; raises InputError for whatever a model raises in it."""
    try:
        return _quietly(network, act)
    except InputError:
        raise
    except Exception as error:  # a user's own code may raise anything
        raise InputError(f"{name}: a forward pass on a trial image fails: {type(error).__name__}: {error}") from error


def _refuse_shape(given: Tensor, classes: int | None, name: str) -> None:
    """Raises InputError for an output (N, ...) that is not one score a class."""
    if given.ndim == 2 and given.shape[1] == (classes or max(given.shape[1], 2)):
        return
    if given.ndim == 1 or tuple(given.shape[1:]) == (1,):
        hint = "; two classes need one score each" if classes in (None, 2) else ""
        raise InputError(f"{name}: its output is one number per image; expected {classes or 'several'} class scores{hint}")
    got = f"{given.shape[1]} values" if given.ndim == 2 else f"values of shape {tuple(given.shape[1:])}"
    raise InputError(f"{name}: its output is {got} per image; expected {classes or '(K,)'}, one score per class of the data")


def what_is_given(rows: Tensor) -> Gives:
    """Whether rows (N, K) are class scores, probabilities (none negative, each row sums to 1), or logarithms of such."""
    rows = rows.detach().double()
    if bool((rows >= 0).all()) and bool(((rows.sum(1) - 1).abs() < SUMS_TO_ONE).all()):
        return "probabilities"
    if bool((rows <= 0).all()) and bool(((rows.exp().sum(1) - 1).abs() < SUMS_TO_ONE).all()):
        return "log-probabilities"
    return "scores"


def _quietly(network: nn.Module, act: Callable[[], Any]) -> Any:
    """Do something in evaluation mode, without gradients and without a draw from the global generator."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return act()
    except RuntimeError as error:
        name = type(getattr(network, "model", network)).__name__
        raise InputError(f"{name}: a forward pass on an image of this size fails: {error}") from error
    finally:
        for module, mode in modes:
            module.training = mode


def probe(network: Network, image_shape: tuple[int, int, int]) -> Shapes:
    """What a network's outputs measure for images (C, H, W), found by one forward that changes nothing in it.

    Raises InputError for images that are not square where the network is made for squares of one side.
    """
    images = torch.zeros(1, *image_shape, dtype=torch.uint8, device=network.mean.device)
    try:
        return measure_outputs(network, images, image_shape[1])
    except Exception as error:
        if problems := _oblong(network, *image_shape[1:]):
            raise InputError(*problems) from error
        raise


def measure_outputs(network: Network, inputs: Tensor, height: int) -> Shapes:
    """What a network's outputs measure for inputs of a height, found by one forward that changes nothing in it."""
    out: Outputs = _quietly(network, lambda: network(inputs, Need.LOGITS | Need.STAGES | Need.EMBEDDING))
    stages = tuple(StageShape(m.shape[1], m.shape[2], m.shape[3], height / m.shape[2]) for m in out.stages)
    return Shapes(
        classes=out.logits.shape[1],
        embedding=0 if out.embedding is None else out.embedding.shape[1],
        stages=stages,
        preact=network.gives_preactivations,
        distilled=network.has_distillation_token,
        classifier=_classifier_copy(network, out),
    )


def _oblong(network: Network, height: int, width: int) -> list[str]:
    """The networks, of an ensemble each, that are made for squares of one side and are given images that are none, a sentence each."""
    if height == width:
        return []
    parts = [part for part in network.modules() if isinstance(part, Network) and hasattr(part.model, "pretrained_cfg")]
    seen_whole = [part for part in parts if part.image_size in (None, width)]  # `normalise` resizes the images of the others
    configs = [cast("dict[str, Any]", part.model.pretrained_cfg) for part in seen_whole]
    names = sorted({str(config.get("architecture")) for config in configs if config.get("fixed_input_size")})
    return [
        f"{name}: is made for square images, but these have height {height} and width {width}; {name}@{height} resizes them to "
        f"{height}x{height}"
        for name in names
    ]


def _classifier_copy(network: Network, out: Outputs) -> nn.Module | None:
    """A frozen copy of the module from embedding to logits, where there is one and it says what the network says."""
    if out.embedding is None or (network.is_timm and len(_heads(network.model)) > 1):
        return None
    whole = copy.deepcopy(network.whole_classifier()).requires_grad_(False).eval()
    with torch.no_grad():
        found = whole(out.embedding)
    if found.shape != out.logits.shape:
        return None
    given, own = (out.logits, found) if network.gives == "scores" else (out.logits.log_softmax(1), found.log_softmax(1))
    return whole if torch.allclose(own, given, atol=1e-4, rtol=1e-3) else None


def count(network: Network, image_shape: tuple[int, int, int]) -> NetworkCost:
    """Parameters of the wrapped model and the multiply-accumulates of one image."""
    return NetworkCost(sum(p.numel() for p in network.model.parameters()), multiply_accumulates(network, network, image_shape))


def multiply_accumulates(scored: nn.Module, network: Network, image_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one image through `scored.logits`: the network's own, or of what is made of it."""
    images = torch.zeros(1, *image_shape, dtype=torch.uint8, device=network.mean.device)
    counter = FlopCounterMode(display=False)
    with attention_as_products(), counter:
        _quietly(scored, lambda: scored.logits(images))  # type: ignore[operator]
    return counter.get_total_flops() // 2


@contextmanager
def attention_as_products() -> Iterator[None]:
    """A block in which attention is computed by plain matrix products on every device, so that a counter of operations sees them.

    Of fused kernels it knows some and not others (the CPU's among these), and torch's own transformer layers run whole as one.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def module_name(module: nn.Module) -> str:
    """`module:<class>-<12 hex>` of its structure as printed and its weights: another state is another network."""
    digest = hashlib.sha256(str(module).encode())
    for key, value in module.state_dict().items():
        content = value.detach().cpu().contiguous()
        digest.update(f"{key} {content.dtype} {tuple(content.shape)}".encode())
        digest.update(content.reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"module:{type(module).__name__}-{digest.hexdigest()[:12]}"


def identity(network: Network) -> str:
    """A digest of all that decides what a network says: its weights, its structure, its code, how it takes images."""
    digest = hashlib.sha256(repr(network).encode())
    for name, value in sorted({**network.state_dict(), **dict(network.named_buffers())}.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    for one in (module for module in network.modules() if type(module) in (Network, Frozen)):
        digest.update(repr((one.channels, one.image_size, one.taps, one.layout, one.gives)).encode())
    digest.update(f"torch {torch.__version__} timm {timm.__version__}".encode())
    for file in sorted({inspect.getsourcefile(type(module)) or "" for module in network.modules() if _has_source(type(module))}):
        digest.update(Path(file).read_bytes())
    helpers: dict[str, str] = {}
    for cls in {type(module) for module in network.modules()}:
        if _has_source(cls) and cls.__module__.partition(".")[0] != "kdzoo":
            helpers |= modules_beside(cls)
    for name, text in sorted(helpers.items()):
        digest.update(f"{name}\n{text}\n".encode())
    return digest.hexdigest()


def _has_source(cls: type) -> bool:
    """Whether a class stands in a file of somebody other than torch and timm, whose versions say enough."""
    if cls.__module__.partition(".")[0] in ("torch", "timm"):
        return False
    try:
        return Path(inspect.getsourcefile(cls) or "").is_file()
    except (TypeError, OSError):  # a class of a notebook or of an interactive session: its structure and weights must do
        return False


@contextmanager
def normalising(network: Network, norm: Normalisation) -> Iterator[None]:
    """The network under another normalisation, for as long as the context lasts."""
    before = network.mean, network.std
    network.mean, network.std = (
        torch.tensor(part, device=old.device).view(1, -1, 1, 1) for part, old in zip((norm.mean, norm.std), before, strict=True)
    )
    try:
        yield
    finally:
        network.mean, network.std = before


def own_norm(name: str) -> Normalisation | None:
    """What timm's weights for an architecture were trained under; None where there is none."""
    config = timm.get_pretrained_cfg(name) if is_known(name) else None
    if config is None or not config.mean or not config.std:
        return None
    return Normalisation(mean=tuple(map(float, config.mean)), std=tuple(map(float, config.std)))


def freeze(network: Network) -> Network:
    """The network for good in evaluation mode and without gradients, whatever `train` is called with."""
    if not isinstance(network, Ensemble):
        network.__class__ = Frozen
    network.requires_grad_(False)
    return network.eval()


def pair_stages(student: Shapes, teacher: Shapes, pairing: Literal["deep", "left"]) -> tuple[tuple[int, int], ...]:
    """Which student stage meets which teacher stage, shallow to deep, one to one and in order.

    `deep`: from the student's deepest stage on, each takes, of the teacher's stages shallower than the last one taken,
    the one nearest in reduction (the deeper of two equally near). `left` pairs by position, as published tables do.
    """
    if pairing == "left":
        return tuple((i, i) for i in range(min(len(student.stages), len(teacher.stages))))
    pairs: list[tuple[int, int]] = []
    limit = len(teacher.stages)
    for position in reversed(range(len(student.stages))):
        if limit == 0:
            break
        reduction = student.stages[position].reduction
        distance = [abs(_log_ratio(stage.reduction, reduction)) for stage in teacher.stages[:limit]]
        limit = max(range(limit), key=lambda t: (-round(distance[t], 6), t))
        pairs.append((position, limit))
    return tuple(reversed(pairs))


def _log_ratio(a: float, b: float) -> float:
    return float(torch.log2(torch.tensor(a / b, dtype=torch.float64)))
