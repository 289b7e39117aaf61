"""Teacher-free distillation: a virtual teacher that is nearly always right (Yuan et al., 2020)."""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Coefficients, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.methods._ops import wide
from kdzoo.methods.hinton import hinton


def tfkd(student_logits: Tensor, targets: Tensor, *, correct: float, temperature: float) -> Tensor:
    """T^2 KL(v_T || softmax(s / T)), v_T being the virtual teacher's probabilities softened; mean over the batch (L_reg).

    Logits (B, K), targets (B,). The virtual teacher gives the target `correct` and every other class
    (1 - correct) / (K - 1); softened, they are raised to 1 / T and normalised again. T^2 is `hinton`'s.
    """
    s = wide(student_logits)
    wrong = (1 - correct) / (s.shape[1] - 1)
    virtual = s.new_full(s.shape, math.log(wrong)).scatter(1, targets[:, None], math.log(correct))
    return hinton(s, virtual, temperature=temperature)


@register(
    "tfkd",
    needs=Needs(Need.LOGITS | Need.TARGETS, Need.NOTHING),
    published=Coefficients(task=0.9, term=0.1),
    source=Source(
        "Revisiting Knowledge Distillation via Label Smoothing Regularization",
        2020,
        "https://arxiv.org/abs/1909.11723",
        equation="L_reg",
        weights="0.9 CE + 0.1 L with a virtual teacher of 0.99 at T = 20, as in the authors' settings for ImageNet",
    ),
    formula="{temperature}^2 * KL(v || softmax(s / {temperature})), v proportional to {correct} at y and (1 - {correct}) / (K - 1) "
    "elsewhere, to the power of 1 / {temperature}",
    family="self",
    disagreements=(
        "The authors' code softens the virtual teacher by a second softmax over its probabilities, leaves the student at T = 1, and "
        "averages over the K classes too, which a multiplier of 100 or 1000 makes up for; here both are softened as the paper writes it.",
        "The authors' code has T^2 in its other losses and not in this one; the loss here has it, as all softened ones.",
        "KD_Lib takes a virtual teacher of 0.9 at T = 10 and a weight of 0.5.",
    ),
    per_sample=True,
)
class TfKD(Method):
    """A virtual teacher that gives the label almost all of the probability and the other classes equal shares; no teacher."""

    correct: float = Field(0.99, gt=0, lt=1, description="the virtual teacher's probability of the label")
    temperature: float = Field(20.0, gt=0, description="softens both softmaxes")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        if self.correct * student.classes <= 1:
            raise InputError(
                f"correct: expected more than a chance of 1/{student.classes}, got {self.correct:g}: the virtual teacher would be wrong"
            )
        return nn.Module()

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return tfkd(student.logits, batch.targets, correct=self.correct, temperature=self.temperature)
