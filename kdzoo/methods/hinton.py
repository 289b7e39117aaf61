"""Knowledge distillation: the teacher's softened probabilities as targets (Hinton, Vinyals and Dean, 2015)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Coefficients, Setting, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import taught, wide


def hinton(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """T^2 KL(softmax(t / T) || softmax(s / T)), summed over the K classes, mean over the batch.

    Logits (B, K); T > 0. T^2 keeps the gradient's size when T changes (section 2 of the paper); it is part of the loss
    here, whatever the weights. Implementations that average over the classes as well are K times smaller.
    """
    log_s = (wide(student_logits) / temperature).log_softmax(1)
    log_t = (taught(teacher_logits) / temperature).log_softmax(1)
    return temperature**2 * (log_t.exp() * (log_t - log_s)).sum(1).mean()


@register(
    "hinton",
    needs=Need.LOGITS,
    published=Coefficients(task=0.1, term=0.9),
    source=Source(
        "Distilling the Knowledge in a Neural Network",
        2015,
        "https://arxiv.org/abs/1503.02531",
        equation="section 2",
        weights="0.1 CE + 0.9 KD at T = 4 as in the CIFAR-100 tables of CRD (arXiv 1910.10699)",
    ),
    formula="{temperature}^2 * KL(softmax(t / {temperature}) || softmax(s / {temperature}))",
    search=tuple(
        Setting({"temperature": temperature}, alpha=alpha)
        for temperature, alpha in [
            (4.0, 0.9),
            (2.0, 0.9),
            (4.0, 0.5),
            (8.0, 0.9),
            (2.0, 0.5),
            (1.0, 0.5),
            (1.0, 0.9),
            (8.0, 0.5),
            (4.0, 0.7),
        ]
    ),
    zero_at_match=True,
    family="logits",
    disagreements=(
        "Texts and programs are split over what alpha weighs; here it is the teacher, L = (1 - alpha) CE + alpha KD.",
        "Published weights differ: 0.1 CE + 0.9 KD at T = 4 (RepDistiller, mdistiller on CIFAR), 1 CE + 0.1 KD at T = 4 "
        "(Knowledge-Distillation-Zoo), 0.1 CE + 9 KD at T = 2 (the default of the logit-standardisation code), 1 CE + 1 KD (SimKD).",
        "Programs that average over the classes as well (the teacher-free code, DeiT's soft loss) are K times smaller.",
    ),
    per_sample=True,
)
class Hinton(Method):
    """The teacher's softened class probabilities, by KL divergence."""

    temperature: float = Field(4.0, gt=0, description="softens both softmaxes")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return hinton(student.logits, teacher.logits, temperature=self.temperature)
