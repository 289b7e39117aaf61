"""Activation boundaries: which neurons are on, before their activation (Heo et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import PretrainStage, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import connector, full_precision, same_size, taught, wide


def ab(student_stages: Sequence[Tensor], teacher_stages: Sequence[Tensor], *, margin: float = 1.0) -> Tensor:
    """3/1000 of the squared hinges max(0, margin - s)^2 where t > 0, max(0, margin + s)^2 elsewhere (the paper's margin loss).

    Pre-activation maps (B, C, H, W), one to one with equal channels; of two sizes the larger is average-pooled. Summed
    over C x H x W, mean over the batch, summed over the n stages with the weights 2^(i - n + 1), 1 at the deepest.
    """
    total = wide(student_stages[0]).new_zeros(())
    for depth, (student, teacher) in enumerate(zip(student_stages, teacher_stages, strict=True), start=1 - len(student_stages)):
        s, t = same_size(wide(student), taught(teacher))
        hinge = (margin - torch.where(t > 0, s, -s)).clamp(min=0)
        total = total + 2.0**depth * hinge.square().sum() / len(s)
    return total * (3 / 1000)


@register(
    "ab",
    needs=Need.PREACT,
    scale=1.0,
    source=Source(
        "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons",
        2019,
        "https://arxiv.org/abs/1811.03233",
        equation="the loss with a margin, which stands in for the count of unequal boundaries",
        weights="the pretrain stage minimises L alone; the second is CE alone as in the CIFAR-100 tables of CRD (arXiv 1910.10699)",
    ),
    formula="3/1000 * sum over stages i of 2^(i-n+1) * mean_b sum max(0, {margin} - sign(t) r(s))^2",
    family="features",
    pretrain=PretrainStage("ab", share=1 / 8, followed_by=()),
    disagreements=(
        "The paper goes on with knowledge distillation after the pretrain stage; RepDistiller and Knowledge-Distillation-Zoo with "
        "cross-entropy alone, as here. `ab+hinton` is the paper's.",
        "Knowledge-Distillation-Zoo takes a margin of 2, the mean over all elements and over the three stages, and a weight of 10.",
        "RepDistiller's connectors change the size of the student's maps by strided convolutions; here they are 1x1 convolutions with "
        "batch norm, and the larger map is average-pooled.",
        "RepDistiller's pretrain stage takes 30 of 270 epochs, Knowledge-Distillation-Zoo's 50 with rates of its own; here it is an eighth "
        "of the recipe's epochs, besides them, with the recipe's rates.",
    ),
)
class AB(Method):
    """On which side of its activation's threshold each of the teacher's neurons is.

    Where channels differ, a 1x1 convolution with batch norm carries the student's maps to the teacher's.
    """

    margin: float = Field(1.0, gt=0, description="how far beyond the threshold a neuron is driven")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        pairs = zip(student.stages, teacher.stages, strict=True)
        return nn.ModuleList(nn.Identity() if s.channels == t.channels else connector(s.channels, t.channels) for s, t in pairs)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        with full_precision(student.preact[0]):
            pairs = zip(cast(nn.ModuleList, module), student.preact, teacher.preact, strict=True)
            connected = [connect(same_size(wide(s), t)[0]) for connect, s, t in pairs]
            return ab(connected, teacher.preact, margin=self.margin)
