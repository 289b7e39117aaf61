"""Weighted transformed teacher matching: samples on which the teacher is less sure count more (Zheng and Yang, 2024)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import divergence, taught, wide


def wttm(student_logits: Tensor, teacher_logits: Tensor, *, power: float) -> Tensor:
    """U KL(q || softmax(s)), U = sum_k p_t(k)^power and q = p_t^power / U, mean over the batch (the WTTM loss).

    Logits (B, K). U is between 1, for a teacher that is certain, and K^(1 - power), for one that knows nothing.
    """
    powered = power * taught(teacher_logits).log_softmax(1)
    log_u = powered.logsumexp(1, keepdim=True)
    return (log_u[:, 0].exp() * divergence(wide(student_logits).log_softmax(1), powered - log_u)).mean()


@register(
    "wttm",
    needs=Need.LOGITS,
    scale=4.0,
    source=Source(
        "Knowledge Distillation Based on Transformed Teacher Matching",
        2024,
        "https://arxiv.org/abs/2402.11148",
        equation="the WTTM loss",
        weights="CE + 4 L with gamma = 0.2 as in the authors' example beside CRD for vgg13 to vgg8",
    ),
    formula="sum_k p_t(k)^{power} * KL(softmax({power} * t) || softmax(s))",
    family="logits",
    disagreements=("Exponent and weight were tuned to each pair of networks; the one published example adds it to CRD.",),
    per_sample=True,
)
class WTTM(Method):
    """The teacher's softened probabilities for a student that is not softened, weighed by how unsure the teacher is."""

    power: float = Field(0.2, gt=0, le=1, description="exponent of the teacher's probabilities (gamma of the paper), 1 / T")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return wttm(student.logits, teacher.logits, power=self.power)
