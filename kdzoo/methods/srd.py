"""A normalised projector and a soft maximum: the role of the projector in distillation (Miles and Mikolajczyk, 2024)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import LOW_FIRST, Setting, Source, in_doses
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import full_precision, taught, wide

LEAST_VARIANCE = 1e-4
LEAST_SUM = 1e-5


def srd(student_embedding: Tensor, teacher_embedding: Tensor, *, power: float) -> Tensor:
    """log(sum over B x D of |s - t|^power + 1e-5), s and t without their mean and of unit variance over the batch in each unit.

    Embeddings (B, D) of one width. The variance is the batch's own, over B and with 1e-4 added, as in batch norm; the sum is
    inside the logarithm, so that batch and width shift the loss and do not scale its gradient.
    """
    apart = standard_over_batch(wide(student_embedding)) - standard_over_batch(taught(teacher_embedding))
    return (apart.abs().pow(power).sum() + LEAST_SUM).log()


def standard_over_batch(embedding: Tensor) -> Tensor:
    """Each unit of (B, D) without its mean and divided by the root of its variance + 1e-4, over the batch; zero for one sample."""
    variance, mean = torch.var_mean(embedding, dim=0, correction=0)
    return (embedding - mean) * (variance + LEAST_VARIANCE).rsqrt()


@register(
    "srd",
    needs=Need.EMBEDDING,
    scale=2.0,
    source=Source(
        "Understanding the Role of the Projector in Knowledge Distillation",
        2024,
        "https://arxiv.org/abs/2303.11098",
        equation="the soft maximum of distances, as the authors' code has it",
        weights="CE + 2 L beside KL(T = 1) with factor 1, power 4, as in the authors' code for ResNet-34 to ResNet-18 on ImageNet",
    ),
    formula="log(sum |BN(W h_s) - BN(h_t)|^{power} + 1e-5)",
    search=(*in_doses(*LOW_FIRST), Setting({"power": 2.0})),
    family="relations",
    disagreements=(
        "The published recipe is CE + 2 L + KL at T = 1, here `1*ce+1*hinton+2*srd` with hinton.temperature=1; this method is L alone.",
        "The authors' code for transformers sums |c - 1|^4 over the units' correlations c and adds 1e-5 within the logarithm; their code "
        "for ResNets and torchdistill's sum |s - t|^4 over samples and units, as here, and add nothing, so that a match is -infinity.",
        "Their batch norm adds 1e-4 to the variance for ResNets, as here, and nothing for transformers, where a constant unit gives NaN.",
        "Their projector has a bias, which the normalisation behind it takes away; here it has none.",
    ),
)
class SRD(Method):
    """A linear projector, batch-normalised embeddings, and the logarithm of their summed distance to the power of four.

    The projector is there where widths are equal too.
    """

    power: float = Field(4.0, ge=1, description="of the distances: the larger, the more the farthest units count")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return nn.Linear(student.embedding, teacher.embedding, bias=False)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        embedding = wide(student.embedding)
        with full_precision(embedding):
            return srd(module(embedding), teacher.embedding, power=self.power)
