"""Multi-level logit distillation: alike in each sample, across the batch and across the classes (Jin, Wang and Lin, 2023)."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Coefficients, Source, in_doses
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs, Pass
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import divergence, full_precision, taught, wide

FURTHER_TEMPERATURES = (3.0, 5.0, 2.0, 6.0)
"""those that stand beside the base temperature"""


def mlld(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_second_logits: Tensor,
    teacher_second_logits: Tensor,
    *,
    temperature: float,
) -> Tensor:
    """Sum of the losses of samples, batch and classes over T in {temperature, 3, 5, 2, 6} and over two views.

    Logits (B, K) of the first view and of the second. With P the softmaxes (B, K) at T the losses are T^2 KL(P_t || P_s),
    mean over the samples; the rows of (P_s P_s' - P_t P_t')^2 summed, mean over the samples; the rows of
    (P_s' P_s - P_t' P_t)^2 summed, mean over the classes. On the first view samples on which the teacher is surer than on
    the median one, and classes of which it sees more than of the median one, count 0; the second view has no masks.
    """
    samples, classes = unsure(teacher_logits), rare(teacher_logits)
    total = wide(student_logits).new_zeros(())
    for t in (temperature, *FURTHER_TEMPERATURES):
        of_samples, of_batch, of_classes = levels(student_logits, teacher_logits, t)
        total = total + (samples * (of_samples + of_batch)).mean() + (classes * of_classes).mean()
        of_samples, of_batch, of_classes = levels(student_second_logits, teacher_second_logits, t)
        total = total + (of_samples + of_batch).mean() + of_classes.mean()
    return total


def levels(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of each sample (B,), of each sample's relations to the batch (B,), and of each class's to the others (K,)."""
    log_s, log_t = ((z / temperature).log_softmax(1) for z in (wide(student_logits), taught(teacher_logits)))
    s, t = log_s.exp(), log_t.exp()
    with full_precision(s):
        of_batch = (s @ s.T - t @ t.T).square().sum(1)
        of_classes = (s.T @ s - t.T @ t).square().sum(1)
    return temperature**2 * divergence(log_s, log_t), of_batch, of_classes


def unsure(teacher_logits: Tensor) -> Tensor:
    """1 for the samples whose largest probability is the batch's median at most, else 0: (B,)."""
    return _at_most_the_median(taught(teacher_logits).softmax(1).amax(1))


def rare(teacher_logits: Tensor) -> Tensor:
    """1 for the classes whose probabilities' sum over the batch is the median class's at most, else 0: (K,)."""
    return _at_most_the_median(taught(teacher_logits).softmax(1).sum(0))


def _at_most_the_median(values: Tensor) -> Tensor:
    ordered = values.sort().values
    median = (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
    return (values <= median).to(values.dtype)


@register(
    "mlld",
    needs=Needs(Need.LOGITS | Pass.SECOND_VIEW | Need.TARGETS, Need.LOGITS | Pass.SECOND_VIEW),
    published=Coefficients(task=0.1, term=0.9),
    source=Source(
        "Multi-Level Logit Distillation",
        2023,
        "https://openaccess.thecvf.com/content/CVPR2023/html/Jin_Multi-Level_Logit_Distillation_CVPR_2023_paper.html",
        equation="the losses of the instance, batch and class levels",
        weights="0.1 CE + 0.9 L at T = 4, of which 0.1 CE of the second view: the defaults for CIFAR-100 of mdistiller, on which the "
        "authors' code is built",
    ),
    formula="sum over T in {temperature}, 3, 5, 2, 6 and two views of T^2 KL + |P P' - Q Q'|^2 / B + |P' P - Q' Q|^2 / K, "
    "+ {second_label_weight} * CE of the second view",
    search=in_doses(1.0, 0.3, 0.1, 0.03, 3.0),
    family="logits",
    disagreements=(
        "The authors' code multiplies its masks with losses that are already means, so that nothing is masked; here they mask samples "
        "and classes. `mlld_released` is the code as it behaves.",
        "The authors' code takes the first view's logits for the second at T = 2 and 6, and computes the second view's losses of batch "
        "and classes without adding them; here the second view has its own at every temperature.",
        "The code of logit standardisation takes a weight of 9 and a base temperature of 2.",
        "The published runs take 480 epochs, or 960, where other methods have 240, and a stronger augmentation for the second view; here "
        "the two views are two draws of the recipe's augmentation.",
    ),
)
class MLLD(Method):
    """The teacher's probabilities of each sample, their products across the batch, and their products across the classes.

    Two views of each image, five temperatures; what is measured on the second view's labels is a part of the loss.
    """

    temperature: float = Field(4.0, gt=0, description="the base temperature, beside 3, 5, 2 and 6")
    second_label_weight: float = Field(1 / 9, ge=0, description="factor on the second view's cross-entropy")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        student_second, teacher_second = student.second.logits, teacher.second.logits
        labels = F.cross_entropy(wide(student_second), batch.targets)
        distillation = mlld(student.logits, teacher.logits, student_second, teacher_second, temperature=self.temperature)
        return distillation + self.second_label_weight * labels
