"""Variational information distillation: a Gaussian for the teacher, given the student (Ahn et al., 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import adapt_channels, same_size, taught, wide

STARTING_VARIANCE = 5.0
LEAST_VARIANCE = 1e-5


def vid(student_stages: Sequence[Tensor], teacher_stages: Sequence[Tensor], variances: Sequence[Tensor]) -> Tensor:
    """Mean over B x C x H x W of ((mu - t)^2 / v + log v) / 2, summed over stages (without the constant).

    The means mu as the student's regressors give them and the teacher's maps t, (B, C, H, W), one to one; of two sizes
    the larger is average-pooled. variances (C,), above 0, one for each stage. Below zero where v is small enough.
    """
    total = wide(student_stages[0]).new_zeros(())
    for student, teacher, variance in zip(student_stages, teacher_stages, variances, strict=True):
        s, t = same_size(wide(student), taught(teacher))
        v = wide(variance)
        squares = (s - t).square().sum((0, 2, 3))  # of each channel, which shares its variance
        total = total + (squares / v).sum() / t.numel() / 2 + v.log().mean() / 2
    return total


class Gaussians(nn.Module):
    """For each pair of stages, the regressor that gives the mean and one learnt variance a channel."""

    def __init__(self, student: Shapes, teacher: Shapes) -> None:
        super().__init__()
        pairs = zip(student.stages, teacher.stages, strict=True)
        self.means = nn.ModuleList(regressor(s.channels, t.channels) for s, t in pairs)
        start = math.log(math.expm1(STARTING_VARIANCE - LEAST_VARIANCE))
        self.scales = nn.ParameterList(torch.full((t.channels,), start) for t in teacher.stages)

    def variances(self) -> list[Tensor]:
        """log(1 + e^a) + 1e-5 of each scale a: one (C,) for each stage."""
        return [F.softplus(scale) + LEAST_VARIANCE for scale in self.scales]


def regressor(student: int, teacher: int) -> nn.Sequential:
    """Three 1x1 convolutions as wide as the teacher, with ReLUs between them and none behind."""
    return nn.Sequential(
        nn.Conv2d(student, teacher, kernel_size=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(teacher, teacher, kernel_size=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(teacher, teacher, kernel_size=1, bias=False),
    )


@register(
    "vid",
    needs=Need.STAGES,
    scale=1.0,
    source=Source(
        "Variational Information Distillation for Knowledge Transfer",
        2019,
        "https://arxiv.org/abs/1904.05835",
        equation="Gaussian log-likelihood with softplus variances",
        weights="CE + L as in the CIFAR-100 tables of CRD (arXiv 1910.10699)",
    ),
    formula="sum over stages of mean(((mu(F_s) - F_t)^2 / v + log v) / 2), v = softplus(a) + 1e-5 a channel, learnt from 5",
    version="2",
    family="features",
    disagreements=(
        "mdistiller keeps the variances in a plain list, so that they are neither trained nor saved and its loss is a tenth of the mean "
        "of squares; in the paper, the authors' code, RepDistiller and here they are learnt.",
        "RepDistiller decays the numbers behind the variances with all other weights, as here, which draws each variance towards "
        "log 2 = 0.69; Knowledge-Distillation-Zoo too, with a smaller decay.",
        "Knowledge-Distillation-Zoo takes the mean over the three stages and adds 1e-6 to the variance instead of 1e-5.",
        "The paper's regressors have batch norm; RepDistiller's and Knowledge-Distillation-Zoo's have none, as here.",
    ),
    per_sample=True,
)
class VID(Method):
    """A Gaussian for every stage of the teacher, whose mean is regressed from the student's and whose variances are learnt."""

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Gaussians(student, teacher)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        gaussians = cast(Gaussians, module)
        return vid(*adapt_channels(gaussians.means, student.stages, teacher.stages), gaussians.variances())
