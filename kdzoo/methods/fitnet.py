"""Hints: a stage of the student regressed on the teacher's (Romero et al., 2015), trained jointly."""

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
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.methods._ops import BatchNorm, full_precision, mean_square, same_size, taught, wide


def fitnet(student_stages: Sequence[Tensor], teacher_stages: Sequence[Tensor]) -> Tensor:
    """Mean of (s - t)^2 over all of B x C x H x W, summed over the stages given.

    Maps (B, C, H, W), one to one with equal channels, as a regressor hands them over; of two sizes the larger is
    average-pooled to the smaller.
    """
    total = wide(student_stages[0]).new_zeros(())
    for student, teacher in zip(student_stages, teacher_stages, strict=True):
        s, t = same_size(wide(student), taught(teacher))
        total = total + mean_square(s - t)
    return total


@register(
    "fitnet",
    needs=Need.STAGES,
    scale=100.0,
    source=Source(
        "FitNets: Hints for Thin Deep Nets",
        2015,
        "https://arxiv.org/abs/1412.6550",
        equation="3",
        weights="CE + 100 L at the second stage, in one stage of training, as in the CIFAR-100 tables of CRD (arXiv 1910.10699)",
    ),
    formula="mean((r(F_s) - F_t)^2) at one stage",
    version="3",
    family="features",
    disagreements=(
        "The paper trains the hint first and distils afterwards, which is `fitnet_two_stage`; published tables train both together.",
        "RepDistiller and mdistiller end the regressor with batch norm and ReLU, which cannot reach the signed maps of WRNs and "
        "MobileNetV2s; here it ends with the batch norm, without which a weight of 100 diverges at the recipe's learning rate.",
        "RepDistiller and mdistiller change the size of maps within the regressor, for some ratios only; here the larger is pooled.",
        "Knowledge-Distillation-Zoo has no regressor, takes the last stage and a weight of 0.1.",
    ),
)
class FitNet(Method):
    """One stage of the student, through a regressor, on the teacher's.

    The joint form: the paper trains the hint first and distils afterwards. The regressor is a 1x1 convolution with batch
    norm: published code adds a ReLU, which cannot reach the signed maps of WRNs and MobileNetV2s.
    """

    stage: int | None = Field(None, ge=0, description="which of the paired stages, from 0 at the shallow end; the middle one unless given")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        ours, theirs = self._channels(student, teacher)
        return nn.Sequential(nn.Conv2d(ours, theirs, kernel_size=1, bias=False), BatchNorm(theirs))

    def _channels(self, student: Shapes, teacher: Shapes) -> tuple[int, int]:
        """Those of the stage in the student and in the teacher; raises InputError for a stage that is not there."""
        stage = self._stage_of(len(student.stages))
        if stage >= len(student.stages):
            text = ", ".join(f"{s} under {t}" for s, t in zip(student.stages, teacher.stages, strict=True))
            last = len(student.stages) - 1
            raise InputError(f"stage: expected 0 to {last}, got {stage}; the paired stages are {text}")
        return student.stages[stage].channels, teacher.stages[stage].channels

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        stage = self._stage_of(len(student.stages))
        hint = teacher.stages[stage]
        guided, _ = same_size(wide(student.stages[stage]), hint)
        with full_precision(guided):
            return fitnet([module(guided)], [hint])

    def _stage_of(self, stages: int) -> int:
        """The stage that is meant of so many; unless given, the second of three or four and the first of one or two."""
        return (stages - 1) // 2 if self.stage is None else self.stage
