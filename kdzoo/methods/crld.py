"""Cross-view consistency: each view's student learns from both views' teachers, where those are sure (Zhang et al., 2024)."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs, Pass
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import divergence, taught, wide


def crld(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_second_logits: Tensor,
    teacher_second_logits: Tensor,
    *,
    within_weight: float,
    cross_weight: float,
    within_threshold: float,
    cross_threshold: float,
    temperature: float,
) -> Tensor:
    """within_weight m_1 (KD(s_1, t_1) + KD(s_2, t_2)) + cross_weight m_2 (KD(s_2, t_1) + KD(s_1, t_2)), mean over the batch.

    Logits (B, K) of two views 1 and 2; KD is T^2 KL of the softmaxes at T. m_1 is 1 for samples on whose first view the
    teacher's largest probability is at least the within_threshold, m_2 for those on whose second view it is at least the
    cross_threshold, else 0; samples that are left out count in the mean.
    """
    log_s, log_s2, log_t, log_t2 = (
        (z / temperature).log_softmax(1)
        for z in (wide(student_logits), wide(student_second_logits), taught(teacher_logits), taught(teacher_second_logits))
    )
    within = divergence(log_s, log_t) + divergence(log_s2, log_t2)
    cross = divergence(log_s2, log_t) + divergence(log_s, log_t2)
    kept_within, kept_cross = surer(teacher_logits, within_threshold), surer(teacher_second_logits, cross_threshold)
    return temperature**2 * (within_weight * kept_within * within + cross_weight * kept_cross * cross).mean()


def surer(teacher_logits: Tensor, threshold: float) -> Tensor:
    """1 for the samples whose largest probability is at least the threshold, else 0: (B,)."""
    t = taught(teacher_logits)
    return (t.softmax(1).amax(1) >= threshold).to(t.dtype)


@register(
    "crld",
    needs=Needs(Need.LOGITS | Pass.SECOND_VIEW | Need.TARGETS, Need.LOGITS | Pass.SECOND_VIEW),
    source=Source(
        "Cross-View Consistency Regularisation for Knowledge Distillation",
        2024,
        "https://arxiv.org/abs/2412.16493",
        equation="the within-view and cross-view losses",
        weights="CE of both views + 2 within + 0.5 cross at T = 4 with thresholds of 0.9 and 0.2, as in the authors' code",
    ),
    formula="{within_weight} * within + {cross_weight} * cross + {second_label_weight} * CE of the second view, at T = {temperature}",
    family="logits",
    disagreements=(
        "The second view of the published runs has a stronger augmentation than the first; here the two views are two draws of the "
        "recipe's augmentation.",
    ),
    per_sample=True,
)
class CRLD(Method):
    """Softened probabilities within each of two views and across them, for samples on which the teacher is sure.

    What is measured on the second view's labels is a part of the loss.
    """

    within_weight: float = Field(2.0, ge=0, description="factor on the losses within each view")
    cross_weight: float = Field(0.5, ge=0, description="factor on the losses across the views")
    within_threshold: float = Field(0.9, ge=0, le=1, description="how sure the teacher is of the first view for losses within views")
    cross_threshold: float = Field(0.2, ge=0, le=1, description="how sure the teacher is of the second view for losses across views")
    temperature: float = Field(4.0, gt=0, description="softens all softmaxes but the thresholds'")
    second_label_weight: float = Field(1.0, ge=0, description="factor on the second view's cross-entropy")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        student_second, teacher_second = student.second.logits, teacher.second.logits
        consistency = crld(
            student.logits,
            teacher.logits,
            student_second,
            teacher_second,
            within_weight=self.within_weight,
            cross_weight=self.cross_weight,
            within_threshold=self.within_threshold,
            cross_threshold=self.cross_threshold,
            temperature=self.temperature,
        )
        return consistency + self.second_label_weight * F.cross_entropy(wide(student_second), batch.targets)
