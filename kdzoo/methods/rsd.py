"""Redundancy suppression: correlations between the teacher's units and the projected student's (Zhang et al., 2025)."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import LOW_FIRST, Source, in_doses
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import BatchNorm, full_precision, taught, wide

LEAST_DEVIATION = 1e-5


def rsd(student_embedding: Tensor, teacher_embedding: Tensor, *, decorrelation_weight: float) -> Tensor:
    """sum_d (C_dd - 1)^2 + decorrelation_weight sum_(d != e) C_de^2, C being the correlations of the teacher's units with the student's.

    Embeddings (B, D) of one width, D the teacher's. C (D, D) is over the batch: units without their mean and divided by their
    deviation (over B) + 1e-5. Summed over units, not averaged: the loss grows with D.
    """
    s, t = standardise_units(wide(student_embedding)), standardise_units(taught(teacher_embedding))
    with full_precision(s):
        correlations = t.T @ s / len(s)
    own = correlations.diagonal()
    others = correlations.square().sum() - own.square().sum()
    return (own - 1).square().sum() + decorrelation_weight * others


def standardise_units(embedding: Tensor) -> Tensor:
    """Each unit of (B, D) without its mean and divided by its deviation + 1e-5, over the batch; zero for a constant unit."""
    deviation, mean = torch.std_mean(embedding, dim=0, correction=0)
    return (embedding - mean) / (deviation + LEAST_DEVIATION)


class Projector(nn.Module):
    """From the student's embedding to the teacher's width by way of a wider layer: linear, batch norm, GELU, linear; no biases."""

    def __init__(self, student: int, teacher: int, expansion: int) -> None:
        super().__init__()
        self.expand = nn.Linear(student, expansion * student, bias=False)
        self.norm = BatchNorm(expansion * student)
        self.contract = nn.Linear(expansion * student, teacher, bias=False)
        for layer in (self.expand, self.contract):
            nn.init.trunc_normal_(layer.weight, std=0.02)

    def forward(self, embedding: Tensor) -> Tensor:
        normalised = self.norm(self.expand(embedding)[:, :, None, None]).flatten(1)
        return cast(Tensor, self.contract(nn.functional.gelu(normalised)))


@register(
    "rsd",
    needs=Need.EMBEDDING,
    scale=0.1,
    source=Source(
        "Cross-Architecture Distillation Made Simple with Redundancy Suppression",
        2025,
        "https://arxiv.org/abs/2507.21844",
        equation="the invariance and decorrelation terms",
        weights="CE + 0.1 L with kappa = 0.01, as in the authors' code for every pair",
    ),
    formula="sum_d (C_dd - 1)^2 + {decorrelation_weight} * sum over d != e of C_de^2, C = corr(h_t, P(h_s)) over the batch",
    search=in_doses(*LOW_FIRST),
    family="relations",
    disagreements=(
        "The loss is a sum over the teacher's units, as in the authors' code, so that one weight means more for a wider teacher.",
        "A batch of one sample has no deviation: its loss is the teacher's width, without a gradient.",
    ),
)
class RSD(Method):
    """Correlations between the teacher's units and the projected student's, driven to the identity matrix.

    Barlow Twins' loss between two networks instead of two views. The projector learns with the student.
    """

    decorrelation_weight: float = Field(0.01, ge=0, description="factor on squared correlations of different units (kappa of the paper)")
    expansion: int = Field(2, ge=1, description="width of the projector's middle layer, in widths of the student's embedding")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Projector(student.embedding, teacher.embedding, self.expansion)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        embedding = wide(student.embedding)
        with full_precision(embedding):
            return rsd(module(embedding), teacher.embedding, decorrelation_weight=self.decorrelation_weight)
