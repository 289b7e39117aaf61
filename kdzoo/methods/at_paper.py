"""Attention transfer as the paper states it: distances that are not squared (Zagoruyko and Komodakis, 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import same_size, taught, wide
from kdzoo.methods.at import attention


def at_paper(student_stages: Sequence[Tensor], teacher_stages: Sequence[Tensor], *, power: int = 2) -> Tensor:
    """||Q_s / ||Q_s|| - Q_t / ||Q_t|| ||_2 of the maps Q = sum_c |F|^power, mean over the batch, summed over stages.

    The sum of equation 2 without its factor beta / 2. Maps (B, C, H, W), one to one; channels may differ; of two sizes
    the larger is average-pooled before the power.
    """
    total = wide(student_stages[0]).new_zeros(())
    for student, teacher in zip(student_stages, teacher_stages, strict=True):
        s, t = same_size(wide(student), taught(teacher))
        total = total + torch.linalg.vector_norm(attention(s, power) - attention(t, power), dim=1).mean()
    return total


@register(
    "at_paper",
    needs=Need.STAGES,
    scale=1000.0,
    source=Source(
        "Paying More Attention to Attention",
        2017,
        "https://arxiv.org/abs/1612.03928",
        equation="2",
        weights="CE + 1000 L; section 4.1 divides this beta by the number of elements of each attention map and by the batch",
    ),
    formula="sum over stages of 1 / (2 H W) * mean_b ||A_s - A_t||, A = normalise(sum_c |F|^{power})",
    zero_at_match=True,
    family="features",
    disagreements=(
        "The authors' code, RepDistiller and mdistiller take the mean of the squared differences over the batch and the pixels, "
        "which is `at`.",
        "Knowledge-Distillation-Zoo divides by the number of stages and adds 1e-6 to the norms.",
        "Where the paper is read without the division by the map's elements, beta / 2 is 500 at every stage, and the deep stages "
        "no longer outweigh the shallow ones.",
    ),
    per_sample=True,
)
class ATPaper(Method):
    """Where the teacher's stages are active, by the distance of normalised maps, not squared."""

    power: int = Field(2, ge=1, description="exponent of the activations")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        total = wide(student.stages[0]).new_zeros(())
        for s, t in zip(student.stages, teacher.stages, strict=True):
            cells = min(s.shape[2], t.shape[2]) * min(s.shape[3], t.shape[3])
            total = total + at_paper([s], [t], power=self.power) / (2 * cells)
        return total
