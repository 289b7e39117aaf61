"""What kdzoo's own networks share: a stem, stages, a neck, a head, and timm's way of asking for them."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from kdzoo.errors import InputError

CIFAR = {
    "num_classes": 100,
    "input_size": (3, 32, 32),
    "mean": (0.5071, 0.4867, 0.4408),
    "std": (0.2675, 0.2565, 0.2761),
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "first_conv": "stem.0",
    "classifier": "classifier",
}
"""timm's configuration of a network for CIFAR-100"""


CONV_OR_NORM = {"conv": 0, "bn": 1}
"""the places of a convolution and of its batch norm in what `conv_bn` and `conv_bn_relu` make"""

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""a pattern that a module's whole name matches, and its name here, as `re.sub` takes it"""


@dataclass(frozen=True)
class Stage:
    """A part of a network whose output is tapped: the module, its channels, and input side divided by output side.

    activation: the module whose input is the map before its last activation; None where the map itself is signed.
    """

    module: nn.Module
    channels: int
    reduction: int
    activation: nn.Module | None = None


class StagedNetwork(nn.Module):
    """stem -> stages -> neck -> head -> classifier, with the methods that timm's networks have.

    The stages' outputs are the intermediates, without the stem. The neck makes the last map out of the last stage
    (a norm, a convolution), the head turns that map into the embedding (B, `num_features`).
    """

    published_names: ClassVar[Sequence[Rule]] = ()
    """what RepDistiller's code (https://github.com/HobbitLong/RepDistiller), and what took its networks over, calls the modules"""

    def __init__(
        self,
        *,
        stem: nn.Module,
        stages: Sequence[Stage],
        neck: nn.Module | None = None,
        head: nn.Module | None = None,
        num_features: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.feature_info: list[dict[str, Any]] = []
        for position, stage in enumerate(stages, start=1):
            self.add_module(f"stage{position}", stage.module)
            self.feature_info.append({"num_chs": stage.channels, "reduction": stage.reduction, "module": f"stage{position}"})
        self.neck = nn.Identity() if neck is None else neck
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()) if head is None else head
        self.num_features = self.head_hidden_size = num_features
        self.num_classes = num_classes
        self.classifier = _classifier(num_features, num_classes)
        names = {module: name for name, module in self.named_modules()}
        for info, stage in zip(self.feature_info, stages, strict=True):
            info["activation"] = None if stage.activation is None else names[stage.activation]

    @property
    def stages(self) -> list[nn.Module]:
        return [self.get_submodule(info["module"]) for info in self.feature_info]

    def named_as_here(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A state dict under the names of this network, where it has those of the published code; any other as it is."""
        if state.keys() <= self.state_dict().keys():
            return state
        renamed = {self._named_as_here(key): value for key, value in state.items()}
        return state if None in renamed or len(renamed) < len(state) else {str(key): value for key, value in renamed.items()}

    def _named_as_here(self, key: str) -> str | None:
        """What an entry of a published state dict is called here; None where no rule knows it."""
        module, _, tensor = key.rpartition(".")
        for pattern, name in self.published_names:
            if (match := re.fullmatch(pattern, module)) is not None:
                return f"{name(match) if callable(name) else match.expand(name)}.{tensor}"
        return None

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """The last map, (B, C, H, W), of images (B, in_chans, H, W)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return cast(Tensor, self.neck(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The logits (B, K) of the last map, or the embedding (B, D) with `pre_logits`."""
        x = self.head(x)
        return x if pre_logits else cast(Tensor, self.classifier(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The last map and the stages' outputs, as timm's networks give them.

        indices: all stages if None, the last n if an integer, else those at the indices. `norm` has no effect: the
        stages are given as the literature taps them. With `stop_early` nothing deeper than the last index is computed.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt: expected 'NCHW', got {output_fmt!r}")
        stages = self.stages
        positions = _stage_positions(len(stages), indices)
        maps: list[Tensor] = []
        x = self.stem(x)
        for position, stage in enumerate(stages):
            if stop_early and position > max(positions):
                break
            x = stage(x)
            if position in positions:
                maps.append(x)
        return maps if intermediates_only else (self.neck(x), maps)

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier for `num_classes` (none for 0); `global_pool` must be left alone."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool: expected 'avg', got {global_pool!r}")
        self.num_classes = num_classes
        self.classifier = _classifier(self.num_features, num_classes)


def _classifier(num_features: int, num_classes: int) -> nn.Module:
    return nn.Linear(num_features, num_classes) if num_classes > 0 else nn.Identity()


def _stage_positions(count: int, indices: int | Sequence[int] | None) -> set[int]:
    if indices is None:
        return set(range(count))
    selection = range(count - indices, count) if isinstance(indices, int) else indices
    positions = {index + count if index < 0 else index for index in selection}
    if not positions or not positions <= set(range(count)):
        raise ValueError(f"indices: expected stages of the {count} there are, got {indices!r}")
    return positions


def conv_bn_relu(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, bias: bool = False) -> nn.Sequential:
    """A convolution that keeps the size (up to its stride), batch norm and ReLU."""
    return nn.Sequential(*conv_bn(inputs, outputs, kernel, stride, groups, bias=bias), nn.ReLU(inplace=True))


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, *, bias: bool = False) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias), nn.BatchNorm2d(outputs))


def init_kaiming_fan_out(network: nn.Module) -> None:
    """Convolutions from N(0, 2 / fan_out) (He et al. 2015); batch norms and linear layers as torch makes them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def init_fan_out_without_groups(network: nn.Module, *, linear_std: float | None = None) -> None:
    """Convolutions from N(0, 2 / (k^2 C_out)), biases 0; linear weights from N(0, linear_std^2), or as torch makes them."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=math.sqrt(2 / (math.prod(module.kernel_size) * module.out_channels)))
        elif isinstance(module, nn.Linear) and linear_std is not None:
            nn.init.normal_(module.weight, std=linear_std)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def register_networks(module: str, networks: Mapping[str, Callable[..., nn.Module]], config: Mapping[str, Any]) -> None:
    """Make networks known to timm under their names. They have no published weights: `pretrained=True` is an InputError."""
    from timm.models import generate_default_cfgs, is_model, model_entrypoint, register_model

    configs = sys.modules[module].__dict__.setdefault("default_cfgs", {})
    configs.update(generate_default_cfgs({name: dict(config) for name in networks}))
    for name, build in networks.items():
        home = model_entrypoint(name).__module__ if is_model(name) else module
        if home != module and home.partition(".")[0] != "timm":  # a plugin's, which came first, stays
            continue
        register_model(_entrypoint(module, name, build))


def _entrypoint(module: str, name: str, build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    from timm.models import build_model_with_cfg

    # timm looks up an entry point by __name__ and __module__, and hands it its own keywords besides the network's.
    def entrypoint(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        if pretrained:
            raise InputError(f"{name}: no published weights exist; use {name}:random for a random start, or {name}:FILE")
        return build_model_with_cfg(build, name, pretrained, **kwargs)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__module__ = module
    entrypoint.__doc__ = build.__doc__
    return entrypoint
