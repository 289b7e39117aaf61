"""The flow of the solution procedure: how each stage's channels go with the next one's (Yim et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import PretrainStage, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.methods._ops import full_precision, same_size, taught, wide


def fsp(student_stages: Sequence[Tensor], teacher_stages: Sequence[Tensor]) -> Tensor:
    """Mean of (G_s - G_t)^2 over B x C x C', summed over the pairs of consecutive stages (equations 1 and 2).

    Maps (B, C, H, W), at least two a network, one to one with equal channels; sizes may differ between the networks,
    since G is a mean over the pixels.
    """
    s, t = [wide(stage) for stage in student_stages], [taught(stage) for stage in teacher_stages]
    total = s[0].new_zeros(())
    for student, teacher in zip(pairwise(s), pairwise(t), strict=True):
        total = total + (flow(*student) - flow(*teacher)).square().mean()
    return total


def flow(shallow: Tensor, deep: Tensor) -> Tensor:
    """G = mean over pixels of F F'^T, (B, C, C'), of maps (B, C, H, W) and (B, C', H', W'); the larger is average-pooled."""
    a, b = same_size(shallow, deep)
    with full_precision(a):
        return a.flatten(2) @ b.flatten(2).transpose(1, 2) / (a.shape[2] * a.shape[3])


@register(
    "fsp",
    needs=Need.STAGES,
    scale=1.0,
    source=Source(
        "A Gift from Knowledge Distillation",
        2017,
        "https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html",
        equation="1 and 2",
        weights="the pretrain stage minimises L alone, every pair of stages alike; the second is CE alone",
    ),
    formula="sum over consecutive stages of mean((G_s - G_t)^2), G = mean over pixels of F F'^T",
    family="features",
    pretrain=PretrainStage("fsp", share=1 / 8, followed_by=()),
    disagreements=(
        "The paper and RepDistiller refuse networks whose stages differ in channels; here a 1x1 convolution carries the student's there.",
        "The paper pools the larger of two maps by maximum; RepDistiller and Knowledge-Distillation-Zoo by average, as here.",
        "The paper's squared norm is a sum over C x C'; RepDistiller and Knowledge-Distillation-Zoo take the mean, as here.",
        "Knowledge-Distillation-Zoo takes the mean over pairs of stages instead of their sum.",
        "Both count the stem's output as the first map; here stages alone are read.",
        "The pretrain stage takes an eighth of the recipe's epochs, 30 of 240; Knowledge-Distillation-Zoo's 50 with rates of its own.",
    ),
    per_sample=True,
)
class FSP(Method):
    """How the channels of each stage go together with those of the next.

    Where channels differ, a 1x1 convolution carries the student's map to the teacher's channels.
    """

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        pairs = list(zip(student.stages, teacher.stages, strict=True))
        if len(pairs) < 2:
            names = ", ".join(f"{s} under {t}" for s, t in pairs)
            raise InputError(f"compares consecutive stages and needs two paired ones at least; the paired stages are {names}")
        return nn.ModuleList(nn.Identity() if s.channels == t.channels else nn.Conv2d(s.channels, t.channels, 1) for s, t in pairs)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        with full_precision(student.stages[0]):
            maps = [carry(wide(s)) for carry, s in zip(cast(nn.ModuleList, module), student.stages, strict=True)]
            return fsp(maps, teacher.stages)
