"""Feature distillation through an ensemble of projectors (Chen et al., 2022)."""

from __future__ import annotations

from typing import cast

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import Rectifier, full_precision, normalise, taught, wide


def pefd(projections: Tensor, teacher_embedding: Tensor) -> Tensor:
    """1 - cos(mean over the projectors, t), mean over the batch (the modified direction alignment loss).

    projections (B, M, D): the student's embedding through M projectors, each behind its ReLU; the teacher's (B, D). A zero
    vector has no direction: its cosine is 0.
    """
    mean = normalise(wide(projections).mean(1))
    return (1 - (mean * normalise(taught(teacher_embedding))).sum(1)).mean()


class Projectors(nn.Module):
    """M linear projectors with a start of their own each, as one layer, and the ReLU behind them."""

    def __init__(self, student: int, teacher: int, number: int) -> None:
        super().__init__()
        self.project = nn.Linear(student, number * teacher)
        self.rectifier = Rectifier()
        self.number = number

    def forward(self, embedding: Tensor) -> Tensor:
        """Every projection (B, M, D_t) of an embedding (B, D_s)."""
        rectified: Tensor = self.rectifier(self.project(embedding))
        return rectified.view(len(embedding), self.number, -1)


@register(
    "pefd",
    needs=Need.EMBEDDING,
    scale=25.0,
    source=Source(
        "Improved Feature Distillation via Projector Ensemble",
        2022,
        "https://arxiv.org/abs/2210.15274",
        equation="the modified direction alignment loss",
        weights="CE + 25 L without Hinton's loss as in the authors' scripts for CIFAR-100 and ImageNet",
    ),
    formula="mean(1 - cos(mean of {projectors} ReLU(W_m h_s + b_m), h_t))",
    family="relations",
    disagreements=(
        "Published projectors end with a ReLU, which cannot reach embeddings below zero; here it cuts at the smallest value that the "
        "teacher gave, which is the ReLU for teachers that end in one.",
        "The authors' code divides by the length as it is, which is NaN where all projections of a sample are zero; here its cosine is 0.",
        "The authors' code builds a fourth projector and neither uses nor trains it.",
    ),
)
class PEFD(Method):
    """The direction of the teacher's embedding, from the mean of several projections of the student's.

    The projectors differ by their start alone; they are there where widths are equal too.
    """

    projectors: int = Field(3, ge=1, description="how many projectors are averaged")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Projectors(student.embedding, teacher.embedding, self.projectors)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        ensemble = cast(Projectors, module)
        ensemble.rectifier.observe(taught(teacher.embedding))
        with full_precision(student.embedding):
            return pefd(ensemble(wide(student.embedding)), teacher.embedding)
