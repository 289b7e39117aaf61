"""The alpha-beta divergence between the softened probabilities (Wang et al., 2025)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import taught, wide

LEAST_POWER = 0.01
"""below it the divergence is within a few per cent of its limit at 0, and in float32 more and more of it is rounding"""
LARGEST_EXPONENT = 60.0
"""of e in a negative power of a probability: float32 goes up to 88"""


def abkd(student_logits: Tensor, teacher_logits: Tensor, *, teacher_power: float, student_power: float, temperature: float) -> Tensor:
    """-1 / (a b) sum_k [p^a q^b - a / (a + b) p^(a + b) - b / (a + b) q^(a + b)], mean over the batch; no T^2.

    Logits (B, K); p and q are the teacher's and the student's softmaxes at temperature T, a the teacher's power and b the
    student's. A power, or their sum, between -0.01 and 0.01 counts as 0, where it is the limit: KL(p || q) for (1, 0), KL(q || p)
    for (0, 1), half the squared distance of the log-probabilities for (0, 0). Where a power c or the sum is negative, a probability
    counts as e^(-60 / |c|) at least.
    """
    log_q, log_p = ((z / temperature).log_softmax(1) for z in (wide(student_logits), taught(teacher_logits)))
    return divergence_of_powers(log_p, log_q, teacher_power, student_power).sum(1).mean()


def divergence_of_powers(log_p: Tensor, log_q: Tensor, a: float, b: float) -> Tensor:
    """The summands of the divergence with powers `a` of p and `b` of q, from log-probabilities, each at least 0."""
    total = a + b
    if (most_negative := min(a, b, total)) < 0:
        log_p, log_q = (x.clamp(min=LARGEST_EXPONENT / most_negative) for x in (log_p, log_q))
    if abs(a) < LEAST_POWER and abs(b) < LEAST_POWER:
        return (log_p - log_q).square() / 2
    if abs(b) < LEAST_POWER:
        return _limit(log_p, log_q, a)
    if abs(a) < LEAST_POWER:
        return _limit(log_q, log_p, b)
    if abs(total) < LEAST_POWER:
        return _limit_of_sum(log_p, log_q, a)
    mixed = (a * log_p + b * log_q).exp()
    return (a / total * (total * log_p).exp() + b / total * (total * log_q).exp() - mixed) / (a * b)


def _limit(log_x: Tensor, log_y: Tensor, power: float) -> Tensor:
    """[x^c log(x^c / y^c) - x^c + y^c] / c^2 for the power c: the limit as the power of y goes to 0."""
    x, y = (power * log_x).exp(), (power * log_y).exp()
    return (x * power * (log_x - log_y) - x + y) / power**2


def _limit_of_sum(log_p: Tensor, log_q: Tensor, power: float) -> Tensor:
    """[(p / q)^c - log (p / q)^c - 1] / c^2 for the power c of p: the limit as the sum of both powers goes to 0."""
    exponent = power * (log_p - log_q)
    return (exponent.exp() - exponent - 1) / power**2


@register(
    "abkd",
    needs=Need.LOGITS,
    scale=32.0,
    source=Source(
        "ABKD: Pursuing a Proper Allocation of the Probability Mass in Knowledge Distillation via alpha-beta-Divergence",
        2025,
        "https://arxiv.org/abs/2505.04560",
        equation="the alpha-beta divergence",
        weights="CE + 32 L with alpha = 0.8, beta = 0.3, T = 4, as in the authors' example for resnet56 to resnet20 on CIFAR-100",
    ),
    formula="AB divergence of softmax(t / {temperature})^{teacher_power} and softmax(s / {temperature})^{student_power}",
    zero_at_match=True,
    family="logits",
    disagreements=(
        "The authors' code divides by alpha once where beta is 0 (and the reverse), where the divergence's limit is divided twice, so that "
        "it jumps there: with alpha = 0.5 it gives half of the limit. Here it is the limit; at (1, 0) and (0, 1) the two agree.",
        "A negative power of a probability has no bound; here a probability counts as e^(-60 / |power|) at least, 9e-27 for a power of -1, "
        "below which it gets no gradient.",
        "Without T^2 its weight makes up for it: 32 at T = 4 is a factor of 2 on T^2 times the divergence.",
        "One pair's weight is published as 32 in the README and as 64 in the script; no table by pair is.",
        "The authors' variants put the divergence into standardised logits, DKD and TTM; they are not here.",
    ),
    per_sample=True,
)
class ABKD(Method):
    """A divergence between forward and reverse KL: `teacher_power` and `student_power` say which errors count more."""

    teacher_power: float = Field(0.8, description="power of the teacher's probabilities (alpha of the paper)")
    student_power: float = Field(0.3, description="power of the student's probabilities (beta of the paper)")
    temperature: float = Field(4.0, gt=0, description="softens both softmaxes")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        powers = {"teacher_power": self.teacher_power, "student_power": self.student_power}
        return abkd(student.logits, teacher.logits, **powers, temperature=self.temperature)
