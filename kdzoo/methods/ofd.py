"""The overhaul of feature distillation: pre-activation maps beyond a margin (Heo et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import connector, full_precision, same_size, taught, wide


def ofd(student_stages: Sequence[Tensor], teacher_stages: Sequence[Tensor], margins: Sequence[Tensor]) -> Tensor:
    """The partial squared distance to the teacher's max(t, m): (s - max(t, m))^2, but 0 where s <= max(t, m) <= 0.

    Pre-activation maps (B, C, H, W), one to one with equal channels; of two sizes the larger is
    average-pooled; margins (C,), one for each stage, 0 at most. Summed over C x H x W, mean over the batch, summed over
    the n stages with the weights 2^(i - n + 1), 1 at the deepest.
    """
    total = wide(student_stages[0]).new_zeros(())
    stages = zip(student_stages, teacher_stages, margins, strict=True)
    for depth, (student, teacher, margin) in enumerate(stages, start=1 - len(student_stages)):
        s, t = same_size(wide(student), taught(teacher))
        target = torch.maximum(t, margin.to(t.dtype)[:, None, None])
        mask = (s > target) | (target > 0)
        total = total + 2.0**depth * torch.where(mask, s - target, 0.0).square().sum() / len(s)
    return total


class Margin(nn.Module):
    """The mean (C,) of a teacher's negative values in each channel, over all batches seen; 0 where there was none."""

    mean: Tensor
    count: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("count", torch.zeros(channels, dtype=torch.int64))

    @torch.no_grad()
    def forward(self, features: Tensor) -> Tensor:
        """The margins, to which a batch (B, C, H, W) is added first while training."""
        if self.training:
            count = (features < 0).sum((0, 2, 3))
            self.count += count
            apart = features.clamp(max=0).sum((0, 2, 3)) - count * self.mean
            self.mean += (apart / self.count.clamp(min=1)).to(self.mean.dtype)
        return self.mean.clone()


class Overhaul(nn.Module):
    """A connector and the teacher's margins for each pair of stages."""

    def __init__(self, student: Shapes, teacher: Shapes) -> None:
        super().__init__()
        pairs = zip(student.stages, teacher.stages, strict=True)
        self.connectors = nn.ModuleList(connector(s.channels, t.channels) for s, t in pairs)
        self.margins = nn.ModuleList(Margin(t.channels) for t in teacher.stages)


@register(
    "ofd",
    needs=Need.PREACT,
    scale=1e-3,
    source=Source(
        "A Comprehensive Overhaul of Feature Distillation",
        2019,
        "https://arxiv.org/abs/1904.01866",
        equation="margin ReLU and partial L2 distance",
        weights="CE + L / 1000 as in the authors' code for CIFAR; 1e-4 for ImageNet",
    ),
    formula="sum over stages i of 2^(i-n+1) * mean_b sum [r(s) > t' or t' > 0] (r(s) - t')^2, t' = max(t, E[t | t < 0])",
    family="features",
    disagreements=(
        "The published code computes the margins in closed form from the teacher's last batch norm, which is exact only for a layer of "
        "normally distributed outputs and not for the residual sums it is used on; the paper lets them be computed in training, as here.",
        "The published code and mdistiller leave the teacher in training mode, so that its statistics drift; here it never is.",
        "mdistiller counts the margins from stage 0 and the maps from the deep end, which fails where the stages differ in number.",
        "Knowledge-Distillation-Zoo takes the margins of the batch alone, the mean over all elements and over the three stages, and a "
        "weight of 0.5.",
    ),
)
class OFD(Method):
    """Pre-activation maps beyond a margin: what the teacher's ReLU lets through exactly, the rest only from above.

    The margin of a channel is the mean of the teacher's negative values there, over all batches seen, the present one
    included. Connectors are 1x1 convolutions with batch norm at every stage; of two sizes the larger map is pooled.
    """

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Overhaul(student, teacher)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        overhaul = cast(Overhaul, module)
        with full_precision(student.preact[0]):
            paired = [same_size(wide(s), taught(t)) for s, t in zip(student.preact, teacher.preact, strict=True)]
            connected = [connect(s) for connect, (s, _) in zip(overhaul.connectors, paired, strict=True)]
            margins = [margin(t) for margin, (_, t) in zip(overhaul.margins, paired, strict=True)]
            return ofd(connected, [t for _, t in paired], margins)
