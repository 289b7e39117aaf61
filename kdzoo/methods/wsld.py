"""Weighted soft labels: samples on which the student is behind the teacher count more (Zhou et al., 2021)."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import taught, wide


def wsld(student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, *, temperature: float) -> Tensor:
    """-T^2 w sum_k p_t(k) log p_s(k), w = 1 - exp(-CE_s / CE_t), mean over the batch (L_wsl).

    Logits (B, K), targets (B,); p are softmaxes at temperature T, the cross-entropies CE of w at temperature 1, with 1e-7
    added to CE_t. The weight w is a constant for the gradient. A cross-entropy, so not zero where the two agree.
    """
    s, t = wide(student_logits), taught(teacher_logits)
    behind = F.cross_entropy(s.detach(), targets, reduction="none") / (F.cross_entropy(t, targets, reduction="none") + 1e-7)
    soft = ((t / temperature).softmax(1) * (s / temperature).log_softmax(1)).sum(1)
    return -(temperature**2) * (-(-behind).expm1() * soft).mean()


@register(
    "wsld",
    needs=Needs(Need.LOGITS | Need.TARGETS, Need.LOGITS),
    scale=2.5,
    source=Source(
        "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective",
        2021,
        "https://arxiv.org/abs/2102.00650",
        equation="L_wsl",
        weights="CE + 2.5 L at T = 2 as in mmrazor for ImageNet; cls_KD has 2.25 L at T = 4 for CIFAR-100",
    ),
    formula="-{temperature}^2 * mean((1 - exp(-CE_s / CE_t)) * sum_k p_t log p_s)",
    family="logits",
    detaches="the weight of each sample",
    disagreements=(
        "Ports that take the KL divergence for the cross-entropy have the same gradient, since the weights are constants for it.",
        "One port takes the weight of the whole batch from its mean cross-entropies, so that no sample is weighed.",
    ),
    per_sample=True,
)
class WSLD(Method):
    """The teacher's softened probabilities, most where the student's cross-entropy is larger than the teacher's."""

    temperature: float = Field(2.0, gt=0, description="softens both softmaxes")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return wsld(student.logits, teacher.logits, batch.targets, temperature=self.temperature)
