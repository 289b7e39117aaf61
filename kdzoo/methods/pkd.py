"""Distillation by Pearson's correlation of each channel's activations (Cao et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import adapt_channels, channel_adapter, same_size, standardise_rows, taught, wide


def pkd(student_stages: Sequence[Tensor], teacher_stages: Sequence[Tensor]) -> Tensor:
    """1 - r, r the correlation of a channel's B x H x W activations in both networks, mean over channels, summed over stages.

    Half the squared distance of the standardised activations (the Pearson loss). Maps (B, C, H, W), one to one with equal
    channels; of two sizes the larger is average-pooled. A channel that is constant in both counts 0, in one 1/2.
    """
    total = wide(student_stages[0]).new_zeros(())
    for student, teacher in zip(student_stages, teacher_stages, strict=True):
        s, t = same_size(wide(student), taught(teacher))
        total = total + (standardise_rows(rows(s)) - standardise_rows(rows(t))).square().sum(1).mean() / 2
    return total


def rows(features: Tensor) -> Tensor:
    """The activations of (B, C, H, W), one row per channel: (C, B H W)."""
    return features.transpose(0, 1).flatten(1)


@register(
    "pkd",
    needs=Need.STAGES,
    scale=6.0,
    source=Source(
        "PKD: General Distillation Framework for Object Detectors via Pearson Correlation Coefficient",
        2022,
        "https://arxiv.org/abs/2207.02039",
        equation="Pearson loss",
        weights="CE + 6 L as published for two-stage detectors, 10 for one-stage ones; none is published for classification",
    ),
    formula="sum over stages of mean over channels of 1 - corr(F_s, F_t)",
    zero_at_match=True,
    family="features",
    disagreements=(
        "mmrazor divides by the deviation with n - 1 and means over n, so that its loss is (n - 1) / n of the paper's 1 - r, n being "
        "B x H x W.",
        "mmrazor enlarges the smaller of two maps, looking at their heights alone; here the larger is average-pooled.",
        "The paper compares pyramids of equal channels; here a 1x1 convolution carries the student's to the teacher's where they differ.",
    ),
)
class PKD(Method):
    """How each channel goes along with the teacher's, whatever its mean and scale.

    Where channels differ, a 1x1 convolution carries the student's map to the teacher's.
    """

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return nn.ModuleList(channel_adapter(s.channels, t.channels) for s, t in zip(student.stages, teacher.stages, strict=True))

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return pkd(*adapt_channels(module, student.stages, teacher.stages))
