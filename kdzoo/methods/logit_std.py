"""Logit standardisation: each network's logits in units of their own spread (Sun et al., 2024)."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Coefficients, Setting, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import wide
from kdzoo.methods.hinton import hinton


def standardised(logits: Tensor) -> Tensor:
    """(z - mean) / (1e-7 + std) of each row of logits (B, K), with the unbiased standard deviation; for any loss on logits."""
    z = wide(logits)
    centred = z - z.mean(1, keepdim=True)
    # a norm has a gradient of zero at zero, where that of a standard deviation is not defined
    deviation: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / math.sqrt(z.shape[1] - 1)
    return centred / (1e-7 + deviation)


def logit_std(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Hinton's T^2 KL(softmax(t / T) || softmax(s / T)) of standardised logits (algorithms 1 and 2).

    Logits (B, K); T > 0 is the base temperature. Summed over the classes, mean over the batch. A shift of all logits of
    a sample, or a positive factor on them, changes nothing.
    """
    return hinton(standardised(student_logits), standardised(teacher_logits), temperature=temperature)


@register(
    "logit_std",
    needs=Need.LOGITS,
    scale=10.0,
    published=Coefficients(task=0.1, term=9.0),
    source=Source(
        "Logit Standardization in Knowledge Distillation",
        2024,
        "https://arxiv.org/abs/2403.01427",
        equation="algorithms 1 and 2",
        weights="0.1 CE + 9 L at T = 2 as in the authors' code for CIFAR-100",
    ),
    formula="{temperature}^2 * KL(softmax(Z(t) / {temperature}) || softmax(Z(s) / {temperature})), Z(z) = (z - mean(z)) / (1e-7 + std(z))",
    search=tuple(
        Setting({"temperature": temperature}, weight=weight)
        for temperature, weight in [(2.0, 1.0), (3.0, 1.0), (4.0, 4 / 3), (2.0, 0.3), (3.0, 1 / 9), (2.0, 3.0)]
    ),
    zero_at_match=True,
    family="logits",
    disagreements=(
        "The authors compare a weight of 9 at T = 2 with standardisation against 0.9 at T = 4 without; their code takes 9 and 2 for "
        "plain knowledge distillation too.",
        "Temperature and weight were tuned to each pair of networks: T of 2 to 4 and weights of 1 to 12.",
        "The authors' version of CTKD standardises where its option says not to, and the reverse.",
    ),
    per_sample=True,
)
class LogitStd(Method):
    """The teacher's softened probabilities, with each network's logits centred and divided by their standard deviation."""

    temperature: float = Field(2.0, gt=0, description="the base temperature, in standard deviations")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return logit_std(student.logits, teacher.logits, temperature=self.temperature)
