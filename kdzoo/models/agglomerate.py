"""Several teachers without classes as one: their embeddings side by side, each put on one scale (AM-RADIO; PHI-S)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from kdzoo.errors import InputError
from kdzoo.models.network import Network
from kdzoo.models.phis import Standardisation
from kdzoo.models.zoo._staged import register_networks

AGGLOMERATE = "agglomerate"
"""the name of such a network; which teachers it has is part of its file"""
NO_FILE = f"network {AGGLOMERATE}: expected a file that `kdzoo teachers join` has written, {AGGLOMERATE}:FILE"


class Agglomerate(nn.Module):
    """Teachers whose embeddings are rotated and scaled to variance 1 in every channel and set side by side, (B, D_1 + ... + D_k).

    Images (B, C, H, W) are in 0..255; each teacher normalises and resizes them for itself. The block of each teacher is multiplied by
    sqrt(D / (k D_i)), D being the sum of the widths: a mean of squares over all channels is then the mean over the teachers of theirs.
    """

    def __init__(self, teachers: Sequence[Network], standardisations: Sequence[Standardisation]) -> None:
        super().__init__()
        self.teachers = nn.ModuleList(teachers)
        self.widths = tuple(one.matrix.shape[0] for one in standardisations)
        for place, (one, width) in enumerate(zip(standardisations, self.widths, strict=True)):
            balance = math.sqrt(sum(self.widths) / (len(self.widths) * width))
            self.register_buffer(f"mean_{place}", one.mean.float())
            self.register_buffer(f"matrix_{place}", (balance * one.matrix).float())

    def forward(self, images: Tensor) -> Tensor:
        blocks = [
            (cast(Network, teacher).logits(images).float() - self.get_buffer(f"mean_{place}")) @ self.get_buffer(f"matrix_{place}").T
            for place, teacher in enumerate(self.teachers)
        ]
        return torch.cat(blocks, 1)


def _without_file(*, num_classes: int = 0, in_chans: int = 3) -> nn.Module:
    """Refuse to build one from its name alone; raises InputError."""
    raise InputError(NO_FILE)


def register_agglomerate() -> None:
    """Make the name known to timm."""
    register_networks(__name__, {AGGLOMERATE: _without_file}, {})
