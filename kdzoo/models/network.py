"""Any network gives what methods read in one forward."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn

from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.data.network_input import normalise
from kdzoo.errors import InputError
from kdzoo.models import generic
from kdzoo.models.capture import CaptureInputs, CaptureOutputs
from kdzoo.runs.spec import Normalisation

Gives = Literal["scores", "probabilities", "log-probabilities"]
ACTIVATED = ("ResNet", "RegNet")
"""timm's families whose stages end with the activation of their last block"""


class Network(nn.Module):
    """A model that takes images in 0..255, normalises them for itself, and gives Outputs.

    `model` is the wrapped network; only its weights are the network's. Images (B, C, H, W), uint8 or float, are scaled
    to [0, 1], resized to `image_size` where that is set, repeated to three channels where the model wants three, and
    normalised with `mean` and `std`. One code path serves every need, so numbers never depend on what else is read.
    Where the model `gives` probabilities, the logits are their logarithm: class scores up to a constant in each row.
    """

    mean: Tensor
    std: Tensor
    joined: tuple[int, ...] = ()
    """the widths of the parts of its embedding that are each another teacher's, of several joined; empty for any other network"""

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
        """whether it is unknown what the weights were trained with, so that the data's own mean and deviation are used"""
        self.headless = False
        """whether it has no classifier: what it gives, its `logits` too, is its embedding (B, D)"""
        self.fresh_head = False
        """whether the classifier replaces one of other classes and starts at random"""
        self.compiled_batch_size: int | None = None
        """the batch size for which all below the head is run compiled in training; None for never"""
        self.frozen = False
        """whether it stays in evaluation mode, whatever `train` is called with"""

    def forward(self, images: Tensor, need: Need) -> Outputs:
        """The outputs in `need` of one forward, and nothing else."""
        return self.outputs_of(self.normalise(images), need)

    def outputs_of(self, x: Tensor, need: Need) -> Outputs:
        """The same of images as the model itself takes them (`normalise`)."""
        with ExitStack() as hooks:
            classifier_inputs = CaptureInputs(hooks, [self.classifier] if Need.EMBEDDING in need and not self.headless else [])
            inner_inputs = CaptureInputs(hooks, self._activations() if Need.PREACT in need else [])
            head_outputs = CaptureOutputs(hooks, heads_of(self.model) if Need.DISTILLED in need else [])
            logits, stages = self._forward_stages(x) if self.is_timm else generic.forward_with_taps(self.model, x, self.layout.stages)
        if self.gives == "probabilities":
            logits = log_of(logits)
            head_outputs.values = [log_of(scores) for scores in head_outputs.values]
        preact = (
            [stage if inner is None else inner for stage, inner in zip(stages, inner_inputs.values, strict=True)]
            if inner_inputs.values
            else None
        )
        values: dict[Need, Any] = {
            Need.LOGITS: head_outputs.values[0] if Need.DISTILLED in need else logits,
            Need.EMBEDDING: logits
            if self.headless
            else None
            if not classifier_inputs.values or classifier_inputs.values[0] is None
            else classifier_inputs.values[0].flatten(1),
            Need.STAGES: stages,
            Need.PREACT: preact,
            Need.DISTILLED: head_outputs.values[-1] if head_outputs.values else None,
            Need.MEMBERS: [logits],
        }
        return Outputs.of({n: value for n, value in values.items() if n in need} | self.parts(need), owner="network")

    def parts(self, need: Need) -> dict[Need, Any]:
        """What is read of the network that takes no forward."""
        parts: dict[Need, Any] = {Need.CLASSIFIER: self.classifier_module()} if Need.CLASSIFIER in need else {}
        return parts | ({Need.NETWORK: NetworkHandle(self)} if Need.NETWORK in need else {})

    def train(self, mode: bool = True) -> Self:
        return super().train(mode and not self.frozen)

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
        linear = [module for module in heads_of(self.model)[0].modules() if isinstance(module, nn.Linear | nn.Conv2d)]
        return linear[-1] if linear else nn.Identity()

    @property
    def hidden_layers(self) -> list[nn.Linear | nn.Conv2d]:
        """The linear and convolutional layers but for the classifiers, whose units are hidden ones."""
        last = heads_of(self.model) if self.is_timm else [self.classifier]
        classifiers = {id(module) for head in last for module in head.modules()}
        return [module for module in self.model.modules() if isinstance(module, nn.Linear | nn.Conv2d) and id(module) not in classifiers]

    @property
    def heads(self) -> int:
        """How many classifiers a timm network has."""
        return len(heads_of(self.model))

    @property
    def has_distillation_token(self) -> bool:
        return self.is_timm and hasattr(self.model, "head_dist") and len(heads_of(self.model)) == 2

    @property
    def gives_sequences(self) -> bool:
        """Whether it takes texts, so that its stages are maps over tokens."""
        return False

    @property
    def tokeniser(self) -> str | None:
        """A digest of what splits its texts into tokens; None for a network of images."""
        return None

    @property
    def gives_preactivations(self) -> bool:
        return self.is_timm and all(isinstance(self._activation_info(position), dict) for position in self.taps)

    def _activation_info(self, position: int) -> dict[str, Any] | None:
        """timm's entry of a stage with the name of its last activation (`activation`; None for a signed map); None if unknown."""
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
        entries = [cast(dict[str, Any], self._activation_info(position)) for position in self.taps]
        return [None if entry["activation"] is None else self.model.get_submodule(entry["activation"]) for entry in entries]

    def classifier_module(self) -> nn.Module:
        """The module that maps the embedding (B, D) to the logits (B, K)."""
        if self.is_timm and len(heads_of(self.model)) > 1:
            raise InputError(f"{type(self.model).__name__}: has several classifiers, and this method reads a single one")
        module = self.classifier
        if isinstance(module, nn.Conv2d):
            return nn.Sequential(nn.Unflatten(1, (module.in_channels, 1, 1)), module, nn.Flatten())
        return module

    def normalise(self, images: Tensor) -> Tensor:
        if images.shape[1] == 1 and self.channels == 3:
            images = images.expand(-1, 3, -1, -1)
        return normalise(images, self.mean, self.std, self.image_size)

    def normalises_with(self, norm: Normalisation) -> bool:
        """Whether this is the normalisation that the network uses, to four decimals."""
        pairs = ((self.mean, norm.mean), (self.std, norm.std))
        return all(torch.allclose(own.flatten().cpu(), torch.tensor(part), rtol=0, atol=1e-4) for own, part in pairs)

    def _forward_stages(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        run = compiled_body() if self.training and len(x) == self.compiled_batch_size else body
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


@dataclass(frozen=True)
class NetworkHandle:
    """The network as methods see it that look at gradients or at other inputs (outputs.DifferentiableNetwork)."""

    network: Network
    stages: tuple[int, ...] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        return self.network.logits(images)

    def outputs(self, images: Tensor, need: Need) -> Outputs:
        outputs: Outputs = self.network(images, need)
        return outputs.restrict_to(need, self.stages)

    def with_stages(self, stages: Sequence[int]) -> NetworkHandle:
        return NetworkHandle(self.network, tuple(stages))


class Peer(nn.Module):
    """A network that learns beside the student, as images -> logits."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.logits(images)


@contextmanager
def other_norm(network: Network, norm: Normalisation) -> Iterator[None]:
    """The network under another normalisation, for as long as the context lasts."""
    before = network.mean, network.std
    network.mean, network.std = (
        torch.tensor(part, device=old.device).view(1, -1, 1, 1) for part, old in zip((norm.mean, norm.std), before, strict=True)
    )
    try:
        yield
    finally:
        network.mean, network.std = before


def freeze(network: Network) -> Network:
    """Put the network into evaluation mode for good, without gradients, whatever `train` is called with."""
    network.frozen = True
    network.requires_grad_(False)
    return network.eval()


def heads_of(model: nn.Module) -> list[nn.Module]:
    """A timm network's classifiers: one, or several whose scores it averages."""
    heads = model.get_classifier()  # type: ignore[operator]
    return list(heads) if isinstance(heads, tuple | list | nn.ModuleList) else [heads]
