"""DeiT's soft distillation: a token that learns the teacher's probabilities (Touvron et al., 2021)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Coefficients, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods.hinton import hinton


def deit_soft(distilled_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """T^2 KL(softmax(t / T) || softmax(d / T)), d the distillation token's logits; summed over classes, mean over the batch (equation 2).

    Logits (B, K); T > 0.
    """
    return hinton(distilled_logits, teacher_logits, temperature=temperature)


@register(
    "deit_soft",
    needs=Needs(Need.DISTILLED, Need.LOGITS),
    published=Coefficients(task=0.9, term=0.1),
    source=Source(
        "Training data-efficient image transformers & distillation through attention",
        2021,
        "https://arxiv.org/abs/2012.12877",
        equation="2",
        weights="0.9 CE + 0.1 L at T = 3, the paper's usual setting",
    ),
    formula="{temperature}^2 * KL(softmax(t / {temperature}) || softmax(d / {temperature}))",
    family="logits",
    disagreements=(
        "The authors' code divides by B x K, so that its loss is K times weaker than the paper's and this one: 100 times on CIFAR-100.",
        "timm's distillation task sums over the classes, as here, and takes T = 4 unless told.",
        "The paper distils softly without a token too, which is Hinton's loss.",
    ),
    per_sample=True,
)
class DeiTSoft(Method):
    """The teacher's softened probabilities for the head of the distillation token; cross-entropy is the class token's.

    What is measured is the mean of the two heads' logits, as timm's distilled models give it.
    """

    temperature: float = Field(3.0, gt=0, description="softens both softmaxes")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return deit_soft(student.distilled, teacher.logits, temperature=self.temperature)
