"""Fully connected networks of any widths: `mlp_1200_1200` has two hidden layers of 1200 units."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from torch import nn

from kdzoo.models.zoo._staged import Stage, StagedNetwork, register_networks

NAME = re.compile(r"mlp((?:_[1-9]\d{0,4})+)")
"""the names of the family: one width per hidden layer, from 1 to 99999"""


class MLP(StagedNetwork):
    """Hidden layers with ReLU on an image's pixels, then the classifier. Input size, channels and classes are the data's.

    Every hidden layer is a stage, a map (B, width, 1, 1) tapped after ReLU; the embedding is the last one. Dropout acts on
    the pixels and on each hidden layer's output, and drops nothing until `set_dropout` says what. `img_size` is the side (or
    height and width) of the images.
    """

    def __init__(self, *, widths: Sequence[int], img_size: int | Sequence[int] = 28, num_classes: int = 10, in_chans: int = 1) -> None:
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        inputs, stages = in_chans * height * width, []
        for units in widths:
            layers = [nn.Flatten(), nn.Dropout(0.0), nn.Linear(inputs, units), nn.Unflatten(1, (units, 1, 1)), nn.ReLU()]
            stages.append(Stage(nn.Sequential(*layers), units, max(height, width), layers[-1]))
            inputs = units
        super().__init__(
            stem=nn.Identity(),
            stages=stages,
            head=nn.Sequential(nn.Flatten(), nn.Dropout(0.0)),
            num_features=inputs,
            num_classes=num_classes,
        )

    def set_dropout(self, *, inputs: float, hidden: float) -> None:
        """Drop this share of the pixels and this share of every hidden layer's units in training; the rest is scaled up."""
        first, *others = [module for module in self.modules() if isinstance(module, nn.Dropout)]
        first.p = inputs
        for module in others:
            module.p = hidden


def widths_of(name: str) -> tuple[int, ...] | None:
    """The widths of the hidden layers of a network of the family, by its name; None for any other name."""
    match = NAME.fullmatch(name)
    return None if match is None else tuple(map(int, match[1].split("_")[1:]))


def register_mlp(name: str, widths: Sequence[int]) -> None:
    """Make the network known to timm."""
    config = {"num_classes": 10, "crop_pct": 1.0, "first_conv": "stage1.2", "classifier": "classifier"}
    register_networks(__name__, {name: partial(MLP, widths=widths)}, {**config, "input_size": (1, 28, 28), "fixed_input_size": True})


MLPS = ("mlp_30_30", "mlp_300_300", "mlp_800_800", "mlp_1200_1200")
"""those of Hinton et al. 2015, section 3, which are listed; others are made known when they are asked for"""

for name in MLPS:
    register_mlp(name, widths_of(name) or ())
