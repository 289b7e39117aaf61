"""Transformed teacher matching: only the teacher is softened (Zheng and Yang, 2024)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import HIGH_FIRST, Setting, Source, in_doses
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import divergence, taught, wide


def ttm(student_logits: Tensor, teacher_logits: Tensor, *, power: float) -> Tensor:
    """KL(q || softmax(s)), q the teacher's probabilities to the `power`, normalised again; mean over the batch (the TTM loss).

    Logits (B, K); q is softmax(power t), which is softening with T = 1 / power. The student is not softened, and there
    is no T^2.
    """
    log_s, log_q = wide(student_logits).log_softmax(1), (power * taught(teacher_logits)).log_softmax(1)
    return divergence(log_s, log_q).mean()


@register(
    "ttm",
    needs=Need.LOGITS,
    scale=45.0,
    source=Source(
        "Knowledge Distillation Based on Transformed Teacher Matching",
        2024,
        "https://arxiv.org/abs/2402.11148",
        equation="the TTM loss",
        weights="CE + 45 L with gamma = 0.1 as in the authors' example for vgg13 to vgg8",
    ),
    formula="KL(softmax({power} * t) || softmax(s))",
    search=(
        *in_doses(*HIGH_FIRST, power=0.1),
        *(Setting({"power": power}, weight=weight) for power, weight in [(0.2, 0.3), (0.2, 1.0), (0.5, 0.1)]),
    ),
    family="logits",
    disagreements=("Exponent and weight were tuned to each pair of networks; one example is published.",),
    per_sample=True,
)
class TTM(Method):
    """The teacher's softened probabilities for a student that is not softened."""

    power: float = Field(0.1, gt=0, le=1, description="exponent of the teacher's probabilities (gamma of the paper), 1 / T")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return ttm(student.logits, teacher.logits, power=self.power)
