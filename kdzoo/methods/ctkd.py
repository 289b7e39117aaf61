"""Curriculum temperature: a temperature that learns to make the task harder (Li et al., 2023)."""

from __future__ import annotations

import math
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.card import Coefficients, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import divergence, taught, wide


def ctkd(student_logits: Tensor, teacher_logits: Tensor, temperature: Tensor) -> Tensor:
    """T^2 KL(softmax(t / T) || softmax(s / T)), summed over the classes, mean over the batch.

    Logits (B, K); T a positive scalar, which gets the gradient of all three places where it stands.
    """
    log_s = (wide(student_logits) / temperature).log_softmax(1)
    log_t = (taught(teacher_logits) / temperature).log_softmax(1)
    return temperature.square() * divergence(log_s, log_t).mean()


def reversed_gradient(value: Tensor, strength: float) -> Tensor:
    """The value as it is, whose gradient is multiplied by -strength on the way back."""
    return value.detach() - strength * (value - value.detach())


class Temperature(nn.Module):
    """T = lowest + span * sigmoid(theta), with one learnt scalar theta, 1 at the start (the paper's global form)."""

    def __init__(self, lowest: float, span: float) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(()))
        self.lowest = lowest
        self.span = span

    def forward(self) -> Tensor:
        return self.lowest + self.span * self.theta.sigmoid()


@register(
    "ctkd",
    needs=Need.LOGITS,
    published=Coefficients(task=0.1, term=0.9),
    source=Source(
        "Curriculum Temperature for Knowledge Distillation",
        2023,
        "https://arxiv.org/abs/2211.16231",
        equation="the global temperature and its cosine curriculum",
        weights="0.1 CE + 0.9 KD with T from 1 to 21 and a curriculum of 10 epochs, as in the authors' code for CIFAR-100",
    ),
    formula="T^2 * KL(softmax(t / T) || softmax(s / T)), T = {lowest} + {span} * sigmoid(theta), theta learnt to raise the loss, "
    "at full strength from epoch {loops} on",
    zero_at_match=True,
    family="logits",
    disagreements=(
        "The paper has a form with a temperature for each sample too, predicted by a small network; here is the global one.",
        "The version in the logit-standardisation code takes a weight of 9; in the logs that it ships T falls below 2.2 within 4 epochs "
        "and stays there, so that it is knowledge distillation at T = 2.",
        "That version also standardises logits where its option says not to, and the reverse.",
        "The curriculum counts epochs, 10 on CIFAR-100 and 5 on ImageNet; it is not scaled to shorter recipes.",
    ),
    per_sample=True,
)
class CTKD(Method):
    """The teacher's softened probabilities, at a temperature that is learnt against the student.

    The temperature's gradient is reversed, by a strength that rises from 0 to 1 along a cosine; it is trained with the
    recipe's rate and weight decay.
    """

    lowest: float = Field(1.0, gt=0, description="the lowest temperature")
    span: float = Field(20.0, gt=0, description="the highest temperature is this much above the lowest")
    loops: int = Field(10, ge=1, description="epochs over which the temperature comes to learn at full strength")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Temperature(self.lowest, self.span)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        temperature = reversed_gradient(cast(Temperature, module)(), self.strength(batch.clock))
        return ctkd(student.logits, teacher.logits, temperature)

    def strength(self, clock: Progress) -> float:
        """How strongly the temperature learns in an epoch: from near 0 to 1 along half a cosine."""
        return (1 - math.cos(math.pi * min((clock.epoch + 1) / self.loops, 1.0))) / 2
