"""Mimicking the logits themselves (Ba and Caruana, 2014)."""

from __future__ import annotations

from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Coefficients, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import taught, wide


def logits(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean of (s - t)^2 over the batch and the classes (equation 1 of the paper without its factor 1/2).

    Logits (B, K). The mean over classes makes the gradient shrink with K: a weight found on 10 classes is ten times
    weaker on 100.
    """
    return (wide(student_logits) - taught(teacher_logits)).square().mean()


@register(
    "logits",
    needs=Need.LOGITS,
    scale=0.1,
    published=Coefficients(task=1.0, term=0.1),
    source=Source(
        "Do Deep Nets Really Need to be Deep?",
        2014,
        "https://arxiv.org/abs/1312.6184",
        equation="1",
        weights="CE + 0.1 L as in Knowledge-Distillation-Zoo; the paper trains without labels",
    ),
    formula="mean((s - t)^2)",
    zero_at_match=True,
    family="logits",
    disagreements=(
        "The paper trains on the teacher's logits alone; published tables add them to cross-entropy with weights between 0.1 and 1.",
    ),
    per_sample=True,
)
class Logits(Method):
    """The teacher's logits, by squared distance."""

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return logits(student.logits, teacher.logits)
