"""Attention transfer: where each stage is active (Zagoruyko and Komodakis, 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import normalise, same_size, taught, wide


def at(student_stages: Sequence[Tensor], teacher_stages: Sequence[Tensor], *, power: int = 2) -> Tensor:
    """Mean over batch and pixels of (A_s - A_t)^2, A the L2-normalised map of mean_c |F|^power, summed over stages.

    Maps (B, C, H, W), one to one; channels may differ; of two sizes the larger is average-pooled before the power.
    This is the form of the authors' code, which the published weight of 1000 goes with. The paper's equation 2 is
    beta / 2 times the sum of unsquared norms, without a mean over pixels; Knowledge-Distillation-Zoo divides by the
    three stages.
    """
    total = wide(student_stages[0]).new_zeros(())
    for student, teacher in zip(student_stages, teacher_stages, strict=True):
        s, t = same_size(wide(student), taught(teacher))
        total = total + (attention(s, power) - attention(t, power)).square().mean()
    return total


def attention(features: Tensor, power: int) -> Tensor:
    """The attention map of (B, C, H, W) features: (B, H W), each row of L2 norm 1."""
    return normalise(features.abs().pow(power).mean(1).flatten(1))


@register(
    "at",
    needs=Need.STAGES,
    scale=1000.0,
    source=Source(
        "Paying More Attention to Attention",
        2017,
        "https://arxiv.org/abs/1612.03928",
        equation="2",
        weights="CE + 1000 L as in the authors' code and the CIFAR-100 tables of CRD (arXiv 1910.10699)",
    ),
    formula="sum over stages of mean((A_s - A_t)^2), A = normalise(mean_c |F|^{power})",
    zero_at_match=True,
    family="features",
    disagreements=(
        "The paper's equation 2 sums unsquared norms of the differences and weighs them with beta / 2; the authors' code means the "
        "squares over batch and pixels, which is what the weight of 1000 goes with. The paper's form is `at_paper`.",
        "The mean over pixels weighs a stage of 8x8 sixteen times as much as one of 32x32.",
        "Knowledge-Distillation-Zoo divides the sum by the three stages, so that its 1000 is 333 here, and adds 1e-6 to norms.",
        "RepDistiller and mdistiller take no absolute value, which is wrong for odd powers of signed maps.",
    ),
    per_sample=True,
)
class AT(Method):
    """Where the teacher's stages are active, as normalised maps of channel means."""

    power: int = Field(2, ge=1, description="exponent of the activations")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return at(student.stages, teacher.stages, power=self.power)
