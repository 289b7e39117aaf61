"""Semantic calibration: every stage of the student on all of the teacher's, by attention (Chen et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import BatchNorm, full_precision, normalise, same_size, taught, wide


def semckd(student_projections: Sequence[Sequence[Tensor]], teacher_stages: Sequence[Tensor], attention: Tensor) -> Tensor:
    """Sum over all pairs of alpha_ij times the mean over C x H x W of (P_ij(s_i) - t_j)^2, mean over the batch and the student's stages.

    student_projections[i][j]: the student's stage i as projected for the teacher's stage j, (B, C_j, H, W); of two sizes
    the larger is average-pooled. attention (B, n_s, n_t), of sum 1 over the teacher's stages.
    """
    rows = []
    for projections in student_projections:
        pairs = [same_size(wide(s), taught(t)) for s, t in zip(projections, teacher_stages, strict=True)]
        # sums keep the memory layout of maps in the backward, means do not
        rows.append(torch.stack([(s - t).square().sum((1, 2, 3)) / t[0].numel() for s, t in pairs], 1))
    return (wide(attention) * torch.stack(rows, 1)).sum((1, 2)).mean() / len(rows)


def similarities(features: Tensor, width: int) -> Tensor:
    """The products (B, width) of each map (B, C, H, W) with those of the batch's first `width` images, zeros where it has fewer."""
    vectors = features.flatten(1)
    rows = vectors @ vectors[:width].T
    return F.pad(rows, (0, width - rows.shape[1]))


class Calibration(nn.Module):
    """Queries of the student's stages, keys of the teacher's, and a projection for every pair of them."""

    def __init__(self, student: Shapes, teacher: Shapes, width: int, middle: int) -> None:
        super().__init__()
        self.width = width
        self.queries = nn.ModuleList(embedding(width) for _ in student.stages)
        self.keys = nn.ModuleList(embedding(width) for _ in teacher.stages)
        self.projections = nn.ModuleList(
            nn.ModuleList(projection(s.channels, t.channels, min(middle, 2 * t.channels)) for t in teacher.stages) for s in student.stages
        )

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> tuple[list[list[Tensor]], Tensor]:
        """The projections of every pair, and the attention (B, n_s, n_t)."""
        projected = [
            [project(same_size(s, t)[0]) for project, t in zip(cast(nn.ModuleList, row), teacher, strict=True)]
            for row, s in zip(self.projections, student, strict=True)
        ]
        return projected, self.attention(student, teacher)

    def attention(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """softmax over the teacher's stages of the product of a student's stage's query with their keys, (B, n_s, n_t)."""
        queries, keys = (
            torch.stack([normalise(embed(similarities(maps, self.width))) for embed, maps in zip(embeds, stages, strict=True)], 1)
            for embeds, stages in ((self.queries, student), (self.keys, teacher))
        )
        return (queries @ keys.transpose(1, 2)).softmax(2)


def embedding(width: int) -> nn.Sequential:
    """From rows of similarities to a quarter of their width, by one hidden layer of half of it."""
    narrow = width // 4
    return nn.Sequential(nn.Linear(width, 2 * narrow), nn.ReLU(), nn.Linear(2 * narrow, narrow))


def projection(student: int, teacher: int, middle: int) -> nn.Sequential:
    """From the student's channels to the teacher's by 1x1, 3x3 and 1x1 convolutions, with `middle` channels in between."""
    return nn.Sequential(
        nn.Conv2d(student, middle, 1, bias=False),
        BatchNorm(middle),
        nn.ReLU(),
        nn.Conv2d(middle, middle, 3, padding=1, bias=False),
        BatchNorm(middle),
        nn.ReLU(),
        nn.Conv2d(middle, teacher, 1, bias=False),
    )


@register(
    "semckd",
    needs=Need.STAGES,
    scale=400.0,
    source=Source(
        "Cross-Layer Distillation with Semantic Calibration",
        2021,
        "https://arxiv.org/abs/2012.03236",
        equation="semantic calibration loss",
        weights="CE + 400 L as in the authors' script, which adds Hinton's loss with factor 1 (T = 4)",
    ),
    formula="mean over student stages i of sum_j alpha_ij * mean((P_ij(F_s,i) - F_t,j)^2), alpha of similarities to {width} images",
    stages="own",
    family="features",
    disagreements=(
        "The authors' attention reads rows of B x B similarities and so works for one batch size alone, the last batch of an epoch being "
        "left out; here the row holds the first `width` images of the batch, with zeros for those that a smaller batch lacks, which is "
        "the same at a batch of `width`.",
        "The authors' projections are twice as wide as the teacher in between, however wide that is: hundreds of millions of parameters "
        "for ResNet-50. Here they have 1,024 channels at most unless more are asked for.",
        "The authors' published results have Hinton's loss besides; the method alone is what is registered here.",
    ),
)
class SemCKD(Method):
    """Every stage of the student, projected, on all stages of the teacher, as a learnt attention shares them out for each image.

    Queries and keys are embeddings of an image's similarities to the first images of its batch, at each stage. They are
    as many as `width`, the published batch size; a smaller batch counts as filled up with zeros, so that any batch
    size is taken.
    """

    width: int = Field(64, ge=4, description="images of the batch that similarities are taken to")
    middle: int = Field(1024, ge=1, description="the most channels within a projection, which has twice the teacher's")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Calibration(student, teacher, self.width, self.middle)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        s, t = [wide(stage) for stage in student.stages], [taught(stage) for stage in teacher.stages]
        with full_precision(s[0]):
            projected, attention = module(s, t)
            return semckd(projected, t, attention)
