"""A generalist with its specialists as one network: `specialists_10x20_resnet8` is a resnet8 and ten more of 20 classes each.

Its logits are the combined log-probabilities (`kdzoo.models.specialists.combine`), so that it is evaluated, and teaches, like any
other network. Which classes the specialists have is part of its weights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.models.specialists import active_specialists, combine
from kdzoo.models.zoo._staged import register_networks

NAME = re.compile(r"specialists_([1-9]\d{0,2})x([1-9]\d{0,3})_(\w+)")


class Committee(nn.Module):
    """A generalist, specialists of the same architecture, their classes, and the corrections of their dustbins' logits."""

    classes: Tensor
    corrections: Tensor

    def __init__(
        self, generalist: nn.Module, specialists: Sequence[nn.Module], sets: Sequence[Sequence[int]], corrections: Sequence[float]
    ) -> None:
        super().__init__()
        self.specialists = nn.ModuleList(specialists)
        self.generalist = generalist
        self.register_buffer("classes", torch.tensor([list(own) for own in sets]))
        self.register_buffer("corrections", torch.tensor(corrections))

    @property
    def sets(self) -> list[list[int]]:
        """The classes of each specialist."""
        sets: list[list[int]] = self.classes.tolist()
        return sets

    def each(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The log-probabilities of the generalist (B, K) and of every specialist (B, size + 1), the dustbin last and corrected."""
        log_probs = []
        for specialist, correction in zip(self.specialists, self.corrections, strict=True):
            logits = specialist(x).float()
            log_probs.append(torch.cat([logits[:, :-1], logits[:, -1:] + correction], 1).log_softmax(1))
        return self.generalist(x).float().log_softmax(1), log_probs  # the generalist last: its maps are this network's stages

    def forward(self, x: Tensor) -> Tensor:
        generalist, log_probs = self.each(x)
        sets = self.sets
        return combine(generalist, log_probs, sets, active_specialists(generalist, sets)).float()


def _at_random(count: int, size: int, architecture: str, *, num_classes: int = 1000, **options: Any) -> Committee:
    """Networks at random, for weights that are read into them."""
    import timm

    specialists = [timm.create_model(architecture, num_classes=size + 1, **options) for _ in range(count)]
    generalist = timm.create_model(architecture, num_classes=num_classes, **options)
    return Committee(generalist, specialists, [range(size)] * count, [0.0] * count)


def committee_name(count: int, size: int, architecture: str) -> str:
    """The name of a generalist with `count` specialists of `size` classes."""
    return f"specialists_{count}x{size}_{architecture}"


def members_of_name(name: str) -> tuple[int, int, str] | None:
    """Number of specialists, classes of each and architecture in such a name; None for any other name."""
    match = NAME.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2]), match[3])


def register_committee(name: str, members: tuple[int, int, str]) -> None:
    """Make the network known to timm, which has to know its architecture."""
    import timm

    base = timm.get_pretrained_cfg(members[2])
    keys = ("input_size", "fixed_input_size", "crop_pct", "num_classes")
    config = {} if base is None else {key: value for key, value in base.to_dict().items() if key in keys}  # type: ignore[no-untyped-call]
    if base is not None:
        config |= {"first_conv": _inside(base.first_conv), "classifier": _inside(base.classifier)}
    register_networks(__name__, {name: partial(_at_random, *members)}, config)


def _inside(names: str | Sequence[str] | None) -> Any:
    """Names of a network's modules as those of the generalist."""
    if names is None or isinstance(names, str):
        return names and f"generalist.{names}"
    return tuple(f"generalist.{name}" for name in names)
