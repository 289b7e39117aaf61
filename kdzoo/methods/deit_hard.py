"""DeiT's hard distillation: a token that learns the teacher's decision (Touvron et al., 2021)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Coefficients, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import wide


def deit_hard(distilled_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy of the distillation token's logits at the teacher's most probable class, mean over the batch (equation 3).

    Logits (B, K). The decision is not smoothed.
    """
    return F.cross_entropy(wide(distilled_logits), teacher_logits.detach().argmax(1))


@register(
    "deit_hard",
    needs=Needs(Need.DISTILLED, Need.LOGITS),
    published=Coefficients(task=0.5, term=0.5),
    source=Source(
        "Training data-efficient image transformers & distillation through attention",
        2021,
        "https://arxiv.org/abs/2012.12877",
        equation="3",
        weights="0.5 CE + 0.5 L, as in the paper",
    ),
    formula="CE(argmax t, softmax(d))",
    family="logits",
    disagreements=(
        "The paper smooths the true labels by 0.1, and the teacher's decisions not; here smoothing of the true labels is the recipe's.",
    ),
    per_sample=True,
)
class DeiTHard(Method):
    """The teacher's decision as a label for the head of the distillation token; cross-entropy is the class token's.

    What is measured is the mean of the two heads' logits, as timm's distilled models give it.
    """

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return deit_hard(student.distilled, teacher.logits)
