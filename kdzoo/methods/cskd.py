"""Class-wise self-distillation: the same prediction for images of the same class (Yun et al., 2020)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs, Pass
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods.hinton import hinton


def cskd(student_logits: Tensor, partner_logits: Tensor, *, temperature: float) -> Tensor:
    """T^2 KL(softmax(p / T) || softmax(s / T)), summed over the K classes, mean over the batch (L_cls).

    Logits (B, K) of an image and of another one of its class, its partner, which gets no gradient; T > 0.
    """
    return hinton(student_logits, partner_logits, temperature=temperature)


@register(
    "cskd",
    needs=Needs(Need.LOGITS | Pass.PARTNER, Need.NOTHING),
    scale=1.0,
    source=Source(
        "Regularizing Class-wise Predictions via Self-knowledge Distillation",
        2020,
        "https://arxiv.org/abs/2003.13964",
        equation="L_cls, with the T^2 of the total loss",
        weights="CE + L at T = 4 as in the authors' code",
    ),
    formula="{temperature}^2 * KL(softmax(s' / {temperature}) || softmax(s / {temperature})), s' of another image of the class",
    family="self",
    disagreements=(
        "In the authors' code one half of a batch are the partners of the other and take no part in cross-entropy; here every image of "
        "the batch has a partner besides, so that a step shows twice as many images.",
        "The authors draw a partner among all images of the class, the image itself included; here it is another one, where there is one.",
    ),
    per_sample=True,
)
class CSKD(Method):
    """What the student itself says of another image of the same class; no teacher."""

    temperature: float = Field(4.0, gt=0, description="softens both softmaxes")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return cskd(student.logits, student.partner.logits, temperature=self.temperature)
