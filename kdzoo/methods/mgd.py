"""Masked generative distillation: the teacher's map from a part of the student's (Yang et al., 2022)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import channel_adapter, full_precision, same_size, taught, wide

Masked = Literal["channels", "cells"]


def mgd(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """The sum of (g - t)^2 over C x H x W, mean over the batch.

    The map g that was generated from the student's masked one and the teacher's t, (B, C, H, W) with equal channels; of
    two sizes the larger is average-pooled.
    """
    s, t = same_size(wide(student_map), taught(teacher_map))
    return (s - t).square().sum() / len(s)


class Generation(nn.Module):
    """The student's map at the teacher's channels, masked, and from it the teacher's by two 3x3 convolutions."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.carrier = channel_adapter(student, teacher)
        self.generator = nn.Sequential(
            nn.Conv2d(teacher, teacher, kernel_size=3, padding=1), nn.ReLU(), nn.Conv2d(teacher, teacher, kernel_size=3, padding=1)
        )

    def forward(self, features: Tensor, kept: Tensor) -> Tensor:
        generated: Tensor = self.generator(self.carrier(features) * kept)
        return generated


def kept(like: Tensor, masked: float, what: Masked, random: torch.Generator) -> Tensor:
    """1 for what is kept of maps (B, C, H, W) and 0 for what is masked: whole channels (B, C, 1, 1), or cells (B, 1, H, W)."""
    batch, channels, height, width = like.shape
    shape = (batch, channels, 1, 1) if what == "channels" else (batch, 1, height, width)
    return (torch.rand(shape, generator=random, device=random.device) >= masked).to(like)


@register(
    "mgd",
    needs=Need.STAGES,
    scale=7e-5,
    source=Source(
        "Masked Generative Distillation",
        2022,
        "https://arxiv.org/abs/2205.01529",
        equation="L_dis",
        weights="CE + 7e-5 L with 0.15 of the channels of the last map masked, as in the authors' code for ImageNet; 1.2e-3 for CIFAR-100 "
        "(ResNet34 to ResNet18), 2e-5 for detection",
    ),
    formula="mean_b sum (G(M * F_s) - F_t)^2 on the last map, {masked} of the {mask} masked",
    stages="last",
    family="features",
    disagreements=(
        "The authors mask cells in detection and segmentation, 0.65 or 0.75 of them, and channels in classification, as here.",
        "The sum over the map's elements makes the published weight one for the 25,088 of ResNet-34's last map; resnet32x4's has 16,384 "
        "and resnet56's 4,096.",
        "The authors refuse maps of two sizes; here the larger is average-pooled.",
    ),
)
class MGD(Method):
    """The teacher's last map generated from the student's, of which a random part is masked.

    Where channels differ, a 1x1 convolution carries the student's map to the teacher's before it is masked.
    """

    masked: float = Field(0.15, ge=0, lt=1, description="the share that is masked, in expectation")
    mask: Masked = Field("channels", description="what is masked as a whole: channels or cells")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Generation(student.stages[-1].channels, teacher.stages[-1].channels)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        s, t = same_size(wide(student.stages[-1]), taught(teacher.stages[-1]))
        whole = t if self.mask == "channels" else s
        with full_precision(s):
            return mgd(module(s, kept(whole, self.masked, self.mask, batch.generator)), t)
