"""Entropy-adaptive decoupled distillation: DKD, samples weighed by how unsure both networks are (Su et al., 2025)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import taught, wide
from kdzoo.methods.dkd import DKD, decoupled
from kdzoo.methods.ea_hinton import entropy_weights


def ea_dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    *,
    target_weight: float,
    nontarget_weight: float,
    temperature: float,
    entropy_temperature: float,
    most_entropy: float | None,
) -> Tensor:
    """Mean over the batch of w_b times the sample's `dkd`, w being `entropy_weights`; logits (B, K), targets (B,)."""
    weights = entropy_weights(student_logits, teacher_logits, temperature=entropy_temperature, most=most_entropy)
    parts = {"target_weight": target_weight, "nontarget_weight": nontarget_weight}
    return (weights * decoupled(wide(student_logits), taught(teacher_logits), targets, **parts, temperature=temperature)).mean()


@register(
    "ea_dkd",
    needs=Needs(Need.LOGITS | Need.TARGETS, Need.LOGITS),
    source=Source(
        "EA-KD: Entropy-based Adaptive Knowledge Distillation",
        2025,
        "https://arxiv.org/abs/2311.13621",
        equation="the reweighed DKD loss",
        weights="CE + TCKD + 8 NCKD at T = 4, a warm-up of 20 epochs and entropies at T' = 3, as in the authors' settings for CIFAR-100",
    ),
    formula="mean_b H(t_b) (1 + H(s_b) / log K) / 2 * {temperature}^2 * ({target_weight} * TCKD_b + {nontarget_weight} * NCKD_b), "
    "entropies at {entropy_temperature}, rising over {warmup} epochs",
    zero_at_match=True,
    detaches="the weight of each sample",
    family="logits",
    disagreements=(
        "The authors' code for CIFAR-100 divides the student's entropy by the number 100 where log 100 is meant, so that it hardly counts; "
        "`most_entropy=100` is that.",
        "For ImageNet the authors' settings say T' = 2, which their code does not read: it takes 3.",
        "With standardised logits the authors take the entropies of the standardised logits too; that variant is not here.",
    ),
    per_sample=True,
)
class EADKD(DKD):
    """Decoupled knowledge distillation, with more weight on samples of which the teacher, and the student, is less sure."""

    entropy_temperature: float = Field(3.0, gt=0, description="softens the softmaxes whose entropy weighs a sample (T' of the paper)")
    most_entropy: float | None = Field(None, gt=0, description="divides the student's entropy; log K, the largest, if unset")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return ea_dkd(
            student.logits,
            teacher.logits,
            batch.targets,
            target_weight=self.target_weight,
            nontarget_weight=self.nontarget_weight,
            temperature=self.temperature,
            entropy_temperature=self.entropy_temperature,
            most_entropy=self.most_entropy,
        )
