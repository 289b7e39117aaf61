"""Refined logit distillation: the teacher's knowledge without its mistakes (Sun et al., 2024)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import divergence, linear_warmup, target_or_not, taught, wide


def rld(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    *,
    confidence_weight: float,
    correlation_weight: float,
    confidence_temperature: float,
    temperature: float,
) -> Tensor:
    """confidence_weight SCD + correlation_weight MCD, mean over the batch.

    Logits (B, K), targets y (B,). SCD is the KL divergence of (p_s(y), 1 - p_s(y)) from the teacher's largest probability
    and the rest, at the confidence_temperature, whichever class is the largest; MCD that of softmaxes over the classes
    whose teacher's logit is below the target's, at `temperature`, zero for fewer than two of them. Both times the square of
    their temperature.
    """
    s, t = wide(student_logits), taught(teacher_logits)
    confident = divergence(
        target_or_not(s / confidence_temperature, targets), target_or_not(t / confidence_temperature, t.argmax(1))
    ).mean()
    correlated = divergence(*(below_the_target(z / temperature, t, targets) for z in (s, t))).mean()
    return confidence_weight * confidence_temperature**2 * confident + correlation_weight * temperature**2 * correlated


def below_the_target(logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
    """Log-softmax (B, K) over the classes that the teacher scores below the target; 0 at the others, and where there is none."""
    below = teacher_logits < teacher_logits.gather(1, targets[:, None])
    some = below.any(1, keepdim=True)
    return logits.masked_fill(~below & some, -float("inf")).log_softmax(1).masked_fill(~below, 0.0)


@register(
    "rld",
    needs=Needs(Need.LOGITS | Need.TARGETS, Need.LOGITS),
    source=Source(
        "Knowledge Distillation with Refined Logits",
        2024,
        "https://arxiv.org/abs/2408.07703",
        equation="sample confidence (SCD) and masked correlation (MCD)",
        weights="CE + SCD + 8 MCD at T = 4 with a warm-up of 20 epochs as in the authors' code",
    ),
    formula="{confidence_weight} * {confidence_temperature}^2 * SCD + {correlation_weight} * {temperature}^2 * MCD, "
    "rising over {warmup} epochs",
    family="logits",
    disagreements=(
        "The authors' code masks with -1e9, which half precision cannot hold, and takes the logarithm of summed probabilities, which is "
        "infinite for large gaps between logits; here classes are taken out and sums are log-sum-exps.",
        "Weights were tuned to each pair of networks.",
    ),
    per_sample=True,
)
class RLD(Method):
    """How sure the teacher is, given to the right class, and the order of the classes that it ranks below that one."""

    confidence_weight: float = Field(1.0, ge=0, description="factor on the teacher's confidence (alpha of the paper)")
    correlation_weight: float = Field(8.0, ge=0, description="factor on the classes below the target (beta of the paper)")
    confidence_temperature: float = Field(1.0, gt=0, description="softens the two probabilities of the confidence")
    temperature: float = Field(4.0, gt=0, description="softens the softmaxes over the classes below the target")
    warmup: int = Field(20, ge=1, description="epochs over which the weight rises")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return rld(
            student.logits,
            teacher.logits,
            batch.targets,
            confidence_weight=self.confidence_weight,
            correlation_weight=self.correlation_weight,
            confidence_temperature=self.confidence_temperature,
            temperature=self.temperature,
        )

    def ramp(self, clock: Progress) -> float:
        return linear_warmup(clock, self.warmup)
