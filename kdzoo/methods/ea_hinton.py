"""Entropy-adaptive distillation: Hinton's loss, samples weighed by how unsure both networks are (Su et al., 2025)."""

from __future__ import annotations

import math

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Coefficients, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import divergence, taught, wide


def ea_hinton(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, entropy_temperature: float, most_entropy: float | None
) -> Tensor:
    """Mean over the batch of w_b T^2 KL(softmax(t_b / T) || softmax(s_b / T)), w being `entropy_weights`.

    Logits (B, K). The weights are not normalised over the batch: they lie between 0 and log K.
    """
    weights = entropy_weights(student_logits, teacher_logits, temperature=entropy_temperature, most=most_entropy)
    log_s, log_t = ((z / temperature).log_softmax(1) for z in (wide(student_logits), taught(teacher_logits)))
    return (weights * temperature**2 * divergence(log_s, log_t)).mean()


def entropy_weights(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, most: float | None) -> Tensor:
    """H(t) (1 + H(s) / most) / 2 of each sample, without a gradient: (B,); H the entropy of a softmax at this temperature, in nats.

    Logits (B, K). most: the largest entropy there can be, log K for None.
    """
    ours, theirs = (_entropy(wide(logits) / temperature) for logits in (student_logits, teacher_logits))
    return (theirs * (1 + ours / (math.log(student_logits.shape[1]) if most is None else most)) / 2).detach()


def _entropy(logits: Tensor) -> Tensor:
    logs = logits.log_softmax(1)
    return -(logs.exp() * logs).sum(1)


@register(
    "ea_hinton",
    needs=Need.LOGITS,
    published=Coefficients(task=0.1, term=0.9),
    scale=0.9,
    source=Source(
        "EA-KD: Entropy-based Adaptive Knowledge Distillation",
        2025,
        "https://arxiv.org/abs/2311.13621",
        equation="the reweighed KD loss",
        weights="0.1 CE + 0.9 L at T = 4 with entropies at T' = 3, as in the authors' settings for CIFAR-100",
    ),
    formula="mean_b H(t_b) (1 + H(s_b) / log K) / 2 * {temperature}^2 * KL_b, entropies at {entropy_temperature}",
    zero_at_match=True,
    detaches="the weight of each sample",
    family="logits",
    disagreements=(
        "The authors' code for CIFAR-100 divides the student's entropy by the number 100 where log 100 is meant, so that it hardly counts; "
        "`most_entropy=100` is that. Their code for ImageNet divides by log 1000.",
        "The weights are not normalised: the loss is up to log K times Hinton's, 4.6 for 100 classes.",
        "For ImageNet (ResNet34 to ResNet18) the authors take CE + 0.5 L at T = 1 and T' = 2.",
    ),
    per_sample=True,
)
class EAHinton(Method):
    """Hinton's loss, with more weight on samples of which the teacher, and the student, is less sure."""

    temperature: float = Field(4.0, gt=0, description="softens both softmaxes")
    entropy_temperature: float = Field(3.0, gt=0, description="softens the softmaxes whose entropy weighs a sample (T' of the paper)")
    most_entropy: float | None = Field(None, gt=0, description="divides the student's entropy; log K, the largest, if unset")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return ea_hinton(
            student.logits,
            teacher.logits,
            temperature=self.temperature,
            entropy_temperature=self.entropy_temperature,
            most_entropy=self.most_entropy,
        )
