"""Attentive feature distillation: channels compared by how important they are (Wang et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import adapt_channels, channel_adapter, full_precision, normalise, same_size, taught, wide


def afd(student_stages: Sequence[Tensor], teacher_stages: Sequence[Tensor], importances: Sequence[Tensor]) -> Tensor:
    """Sum over channels of rho_c times the mean over pixels of (n(s_c) - n(t_c))^2, mean over the batch, summed over stages.

    n divides a channel's map of H x W by its L2 norm. Maps (B, C, H, W), one to one with equal channels; of two sizes
    the larger is average-pooled; importances rho (B, C), one for each stage.
    """
    total = wide(student_stages[0]).new_zeros(())
    for student, teacher, importance in zip(student_stages, teacher_stages, importances, strict=True):
        s, t = same_size(wide(student), taught(teacher))
        apart = (normalise(s.flatten(2), eps=1e-6) - normalise(t.flatten(2), eps=1e-6)).square().mean(2)
        total = total + (wide(importance) * apart).sum(1).mean()
    return total


class Importance(nn.Module):
    """The shares rho (B, C) of a teacher's channels, from their means (B, C): the outputs of a perceptron, through a sigmoid."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.perceptron = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, means: Tensor) -> Tensor:
        # a sigmoid divided by its sum over channels, where neither can round to zero
        return F.logsigmoid(self.perceptron(means)).softmax(1)


class Attentive(nn.Module):
    """A carrier and the importance of channels for each pair of stages."""

    def __init__(self, student: Shapes, teacher: Shapes, width: float) -> None:
        super().__init__()
        pairs = zip(student.stages, teacher.stages, strict=True)
        self.carriers = nn.ModuleList(channel_adapter(s.channels, t.channels) for s, t in pairs)
        self.importances = nn.ModuleList(Importance(t.channels, max(1, int(t.channels * width))) for t in teacher.stages)


@register(
    "afd",
    needs=Need.STAGES,
    scale=500.0,
    source=Source(
        "Pay Attention to Features, Transfer Learn Faster CNNs",
        2020,
        "https://openreview.net/forum?id=ryxyCeHtPB",
        equation="attentive feature distillation",
        weights="CE + 500 L as in Knowledge-Distillation-Zoo",
    ),
    formula="mean over stages of mean_b sum_c rho_c * mean((n(F_s,c) - n(F_t,c))^2), rho of a perceptron of {width} times the channels",
    zero_at_match=True,
    family="features",
    disagreements=(
        "The paper is about transfer to other data: it weighs channels by another attention and selects them as well. "
        "Knowledge-Distillation-Zoo found that attention unstable and put a squeeze-and-excitation block in its place, without the "
        "selection; this is that form.",
        "Knowledge-Distillation-Zoo fails on a batch of one image and needs equal channels; here a 1x1 convolution carries the student's "
        "to the teacher's where they differ.",
        "Nothing keeps the shares from moving to channels that are easy to match, since they are trained on the same loss.",
        "Another method of the same short name (Ji et al., 2021) pairs the layers of two networks by attention.",
    ),
    per_sample=True,
)
class AFD(Method):
    """Maps compared channel by channel, each normalised, the channels weighed by an importance that is learnt.

    The importances are shares, read off the means of the teacher's channels. Stages are averaged, as where the weight
    of 500 comes from. Where channels differ, a 1x1 convolution carries the student's map to the teacher's.
    """

    width: float = Field(1.0, gt=0, description="the perceptron's hidden units as a multiple of the channels")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Attentive(student, teacher, self.width)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        attentive = cast(Attentive, module)
        s, t = adapt_channels(attentive.carriers, student.stages, teacher.stages)
        with full_precision(s[0]):
            importances = [weigh(stage.mean((2, 3))) for weigh, stage in zip(attentive.importances, t, strict=True)]
        return afd(s, t, importances) / len(s)
