"""Several teachers without classes as one: their embeddings side by side, each put on one scale (AM-RADIO; PHI-S)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from kdzoo.models.backbone import load_backbone
from kdzoo.models.network import Network
from kdzoo.models.phis import Standardisation, standardise

ROWS = 100
"""images that the teachers see at once while their embeddings are measured"""


class Agglomerate(nn.Module):
    """Teachers whose embeddings are rotated and scaled to variance 1 in every channel and set side by side, (B, D_1 + ... + D_k).

    Images (B, C, H, W) are in 0..255; each teacher normalises and resizes them for itself. The block of each teacher is multiplied by
    sqrt(D / (k D_i)), D being the sum of the widths: a mean of squares over all channels is then the mean over the teachers of theirs,
    and a linear layer to this width is a head for each.
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


@torch.no_grad()
def agglomerate(teachers: Sequence[str], images: Tensor) -> Agglomerate:
    """One frozen teacher out of several, on whose embeddings of some images (N, C, H, W) uint8 the scales are measured.

    teachers: in the words of the command line, `NAME:pretrained@SIZE`, `NAME:FILE@norm=0.5`; a name alone means its published weights.
    Use it with `set={"teacher.norm": "pixels"}`, since it takes images in 0..255. Raises InputError for what names no weights, and for
    a width without a Hadamard matrix.
    """
    networks = [load_backbone(text, channels=images.shape[1], side=images.shape[2]) for text in teachers]
    standardisations = [standardise(torch.cat([network.logits(part) for part in torch.split(images, ROWS)])) for network in networks]
    return Agglomerate(networks, standardisations).eval().requires_grad_(False)
