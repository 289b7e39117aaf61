"""How far the embeddings or tokens of two networks are apart, the head between their widths, and maps as tokens."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from kdzoo.methods._ops import taught, wide

Distance = Literal["cosine", "squared", "mixed"]
COSINE, SMOOTH = 0.9, 0.1
"""the parts of a mixed distance (AM-RADIO)"""
LEAST_NORM = 1e-4
"""by which a shorter vector is divided: at a vector of zeros the gradient of a cosine would have no bound"""


def unlikeness(student: Tensor, teacher: Tensor, distance: Distance) -> Tensor:
    """The mean distance of the vectors (..., D) of two networks: 1 - cos, squared, or 0.9 (1 - cos) + 0.1 smooth L1 with its knee at 1."""
    s, t = wide(student), taught(teacher)
    if distance == "squared":
        return (s - t).square().mean()
    cosine = 1 - (F.normalize(s, dim=-1, eps=LEAST_NORM) * F.normalize(t, dim=-1, eps=LEAST_NORM)).sum(-1).mean()
    return cosine if distance == "cosine" else COSINE * cosine + SMOOTH * F.smooth_l1_loss(s, t)


def head(student: int, teacher: int, layers: int) -> nn.Module:
    """From vectors of the student's width to the teacher's: a linear layer, or two with a norm and a GELU between them."""
    if layers == 1:
        return nn.Linear(student, teacher)
    return nn.Sequential(nn.Linear(student, teacher), nn.LayerNorm(teacher), nn.GELU(), nn.Linear(teacher, teacher))


def tokens_of(features: Tensor) -> Tensor:
    """The cells of maps (B, C, H, W) as tokens (B, H W, C), row by row."""
    return features.flatten(2).transpose(1, 2)


def resize_to(features: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps (B, C, H, W) on another grid, by bilinear interpolation; a larger one is averaged as it shrinks."""
    if tuple(features.shape[2:]) == grid:
        return features
    return F.interpolate(features, grid, mode="bilinear", align_corners=False, antialias=True)
