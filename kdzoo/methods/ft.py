"""Factor transfer: the student's last map translated to the teacher's paraphrased factor (Kim, Park and Kwak, 2018)."""

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
from kdzoo.methods._ops import BatchNorm, full_precision, normalise, same_size, taught, wide
from kdzoo.methods.ft_paraphraser import Paraphraser, factor_width


def ft(student_stages: Sequence[Tensor], teacher_stages: Sequence[Tensor]) -> Tensor:
    """Mean of |n(f_s) - n(f_t)| over all of B x C x H x W, n dividing a whole factor by its L2 norm (L_FT with p = 1).

    Factors (B, C, H, W), one to one with equal channels, as a translator and a paraphraser hand them over; of two sizes
    the larger is average-pooled; summed over those given.
    """
    total = wide(student_stages[0]).new_zeros(())
    for student, teacher in zip(student_stages, teacher_stages, strict=True):
        s, t = same_size(wide(student), taught(teacher))
        total = total + (normalise(s.flatten(1)) - normalise(t.flatten(1))).abs().mean()
    return total


class Translation(nn.Module):
    """The teacher's frozen paraphraser, and the student's translator: three 3x3 convolutions with batch norm and leaky ReLU."""

    def __init__(self, student: int, teacher: int, width: int) -> None:
        super().__init__()
        self.paraphraser = Paraphraser(teacher, width).requires_grad_(False)
        steps = ((student, student), (student, width), (width, width))
        self.translator = nn.Sequential(
            *(part for a, b in steps for part in (nn.Conv2d(a, b, 3, padding=1), BatchNorm(b), nn.LeakyReLU(0.1)))
        )


@register(
    "ft",
    needs=Need.STAGES,
    scale=200.0,
    source=Source(
        "Paraphrasing Complex Network: Network Compression via Factor Transfer",
        2018,
        "https://arxiv.org/abs/1802.04977",
        equation="L_FT",
        weights="CE + 200 L with p = 1 and a rate of 0.5 as in Knowledge-Distillation-Zoo and RepDistiller",
    ),
    formula="mean |n(translator(F_s)) - n(paraphraser(F_t))|, a factor of {rate} of the teacher's channels",
    stages="last",
    family="features",
    pretrain=PretrainStage("ft_paraphraser", share=1 / 8),
    disagreements=(
        "RepDistiller takes the mean of the squares over the channels before it normalises, which compares attention maps of factors "
        "and not factors; its gradient is about 26 times that of the paper's form on the same tensors.",
        "RepDistiller's translator has batch norm, as here; Knowledge-Distillation-Zoo's has it on CIFAR-10 and not on CIFAR-100.",
    ),
)
class FT(Method):
    """The teacher's last map as a factor of fewer channels, and the student's translated to it.

    The paraphraser is frozen; `ft_paraphraser` trains it in the pretrain stage.
    """

    rate: float = Field(0.5, gt=0, description="the factor's channels as a share of the teacher's")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        channels = teacher.stages[-1].channels
        return Translation(student.stages[-1].channels, channels, factor_width(channels, self.rate))

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        translation = cast(Translation, module)
        s, t = wide(student.stages[-1]), taught(teacher.stages[-1])
        with full_precision(s):
            with torch.no_grad():
                factor = translation.paraphraser.encode(t)
            return ft([translation.translator(same_size(s, t)[0])], [factor])
