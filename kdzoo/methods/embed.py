"""The teacher's embedding from the student's, without labels (the summary loss of AM-RADIO, Ranzinger et al., 2024)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Setting, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._alike import Distance, head, unlikeness
from kdzoo.methods._ops import full_precision, wide


def embed(student_embedding: Tensor, teacher_embedding: Tensor, *, distance: Distance = "cosine", joined: Sequence[int] = ()) -> Tensor:
    """The mean distance of the student's embeddings (B, D), at the teacher's width, from the teacher's.

    distance: `cosine`, 1 - cos; `squared`, the mean of squares over B x D; `mixed`, 0.9 (1 - cos) + 0.1 smooth L1. joined: the widths
    D_i of the k teachers whose embeddings (B, D) has side by side; the loss is then the mean of theirs, each on the scale that it
    has without the factor sqrt(D / (k D_i)) by which they were joined.
    """
    if not joined:
        return unlikeness(student_embedding, teacher_embedding, distance)
    parts = zip(*(torch.split(embedding, list(joined), 1) for embedding in (student_embedding, teacher_embedding)), strict=True)
    scales = [math.sqrt(len(joined) * width / sum(joined)) for width in joined]
    return torch.stack([unlikeness(scale * s, scale * t, distance) for scale, (s, t) in zip(scales, parts, strict=True)]).mean()


class Heads(nn.Module):
    """A head for each of several teachers, whose embeddings stand side by side: (B, D) to (B, D_1 + ... + D_k)."""

    def __init__(self, student: int, teachers: Sequence[int], layers: int) -> None:
        super().__init__()
        self.widths = tuple(teachers)
        self.heads = nn.ModuleList(head(student, width, layers) for width in teachers)

    def forward(self, embedding: Tensor) -> Tensor:
        return torch.cat([one(embedding) for one in self.heads], 1)


@register(
    "embed",
    needs=Need.EMBEDDING,
    scale=1.0,
    source=Source(
        "AM-RADIO: Agglomerative Vision Foundation Model",
        2024,
        "https://arxiv.org/abs/2312.06709",
        equation="the summary loss",
        weights="CE + L: the paper has no labels and minimises L alone, by its head of two layers",
    ),
    formula="{distance} distance of g(e_s) from e_t, g of {layers} layers",
    search=(
        Setting(),
        *(Setting({"distance": distance}, dose=dose) for distance, dose in (("cosine", 0.3), ("mixed", 0.3), ("squared", 0.3))),
        Setting(dose=1.0),
    ),
    family="features",
    disagreements=(
        "AM-RADIO compares summaries by their cosine; DINOv2's own distillation and lightly-train have other losses for the same "
        "purpose, and the mean of squares is what the literature calls embedding distillation.",
        "RADIO's heads are two layers with a residual block between; here two layers with a norm and a GELU between, or one.",
        "A vector shorter than 1e-4 is divided by that, so that a vector of zeros has a gradient of bounded size.",
    ),
    per_sample=True,
)
class Embed(Method):
    """The teacher's embedding from the student's through a head that is dropped afterwards; it reads no labels and no class scores.

    Of several teachers that are joined, each has a head, and the loss is the mean of theirs.
    """

    distance: Distance = Field("cosine", description="how far two embeddings are apart: cosine, squared, or 0.9 cosine + 0.1 smooth L1")
    layers: int = Field(2, ge=1, le=2, description="layers of the head from the student's width to the teacher's")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        if teacher.joined:
            return Heads(student.embedding, teacher.joined, self.layers)
        return head(student.embedding, teacher.embedding, self.layers)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        with full_precision(student.embedding):
            projected: Tensor = module(wide(student.embedding))
        return embed(projected, teacher.embedding, distance=self.distance, joined=module.widths if isinstance(module, Heads) else ())
