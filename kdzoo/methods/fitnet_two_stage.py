"""Hints in two stages: the hint alone first, then distillation of the whole student (Romero et al., 2015)."""

from __future__ import annotations

from torch import nn

from kdzoo.contract.card import PretrainStage, Source
from kdzoo.contract.needs import Need
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods.fitnet import FitNet


@register(
    "fitnet_two_stage",
    needs=Need.STAGES,
    scale=1.0,
    source=Source(
        "FitNets: Hints for Thin Deep Nets",
        2015,
        "https://arxiv.org/abs/1412.6550",
        equation="3 and algorithm 1",
        weights="the pretrain stage minimises equation 3 alone, without a weight; the second is Hinton's loss with its published weights",
    ),
    formula="mean((r(F_s) - F_t)^2) at stage {stage}",
    zero_at_match=False,
    family="features",
    pretrain=PretrainStage("fitnet_two_stage", share=1 / 8, followed_by=("hinton",)),
    disagreements=(
        "The paper anneals the weight of the teacher's probabilities in the second stage; here it is constant.",
        "The paper stops the pretrain stage when a validation loss no longer falls; here it takes an eighth of the recipe's epochs, "
        "30 of 240, as initial stages do in the published CIFAR-100 tables.",
        "RepDistiller and mdistiller train the hint together with cross-entropy in one stage, which is `fitnet`.",
    ),
    per_sample=True,
)
class FitNetTwoStage(FitNet):
    """The student up to one stage trained on the teacher's alone, then the whole student with Hinton's loss.

    The regressor is the paper's, a convolution alone: here 1x1.
    """

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return nn.Conv2d(*self._channels(student, teacher), kernel_size=1)
