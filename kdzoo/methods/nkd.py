"""Normalised knowledge distillation: the target's log-probability, and the other classes normalised (Yang et al., 2023)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import target_or_not, taught, wide, without_target


def nkd(student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, *, nontarget_weight: float, temperature: float) -> Tensor:
    """-p_t(y) log p_s(y) - nontarget_weight T^2 sum over k != y of q_t(k) log q_s(k), mean over the batch (L_nkd).

    Logits (B, K), targets y (B,). p are softmaxes without temperature over all classes, q at temperature T over the
    K - 1 others. Two cross-entropies, so not zero where the two agree.
    """
    s, t = wide(student_logits), taught(teacher_logits)
    target = target_or_not(t, targets)[:, 0].exp() * target_or_not(s, targets)[:, 0]
    log_s, log_t = (without_target(z / temperature, targets).log_softmax(1) for z in (s, t))
    others = (log_t.exp() * log_s).sum(1)
    return -(target + nontarget_weight * temperature**2 * others).mean()


@register(
    "nkd",
    needs=Needs(Need.LOGITS | Need.TARGETS, Need.LOGITS),
    source=Source(
        "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss and Customized Soft Labels",
        2023,
        "https://arxiv.org/abs/2303.13005",
        equation="L_nkd",
        weights="CE + L with gamma = 1.5 and T = 1 as in the authors' settings for ImageNet",
    ),
    formula="mean(-p_t(y) log p_s(y) - {nontarget_weight} * {temperature}^2 * sum over k != y of q_t log q_s)",
    family="logits",
    disagreements=(
        "The authors' code has gamma = 3.5 and T = 3 for CIFAR-100 (ResNet34 to ResNet18), and gamma = 1 and T = 1 for DeiT-T on ImageNet.",
        "Copies differ in how the target is taken out of the second sum: by subtracting 1000, by a Boolean mask, and in one by a mask "
        "that is 1 everywhere and takes nothing out. Here the sum is over the other classes alone.",
        "Another loss goes by the same letters, neighbourhood knowledge distillation; it is not this one.",
    ),
    per_sample=True,
)
class NKD(Method):
    """The target's log-probability as far as the teacher is sure, and the other classes normalised among themselves."""

    nontarget_weight: float = Field(1.5, ge=0, description="factor on the other classes' part (gamma of the paper)")
    temperature: float = Field(1.0, gt=0, description="softens the other classes' softmaxes")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return nkd(student.logits, teacher.logits, batch.targets, nontarget_weight=self.nontarget_weight, temperature=self.temperature)
