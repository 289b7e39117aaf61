"""Decoupled knowledge distillation of standardised logits (Sun et al., 2024, on Zhao et al., 2022)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods.dkd import DKD, dkd
from kdzoo.methods.logit_std import standardised


def logit_std_dkd(
    student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, *, target_weight: float, nontarget_weight: float, temperature: float
) -> Tensor:
    """`dkd` of both networks' standardised logits; logits (B, K), targets (B,), mean over the batch."""
    return dkd(
        standardised(student_logits),
        standardised(teacher_logits),
        targets,
        target_weight=target_weight,
        nontarget_weight=nontarget_weight,
        temperature=temperature,
    )


@register(
    "logit_std_dkd",
    needs=Needs(Need.LOGITS | Need.TARGETS, Need.LOGITS),
    scale=9.0,
    source=Source(
        "Logit Standardization in Knowledge Distillation",
        2024,
        "https://arxiv.org/abs/2403.01427",
        equation="algorithms 1 and 2",
        weights="CE + 9 (TCKD + 8 NCKD) at T = 2 as in the authors' logs for resnet32x4 to resnet8x4",
    ),
    formula="{temperature}^2 * ({target_weight} * TCKD + {nontarget_weight} * NCKD) of Z(s) and Z(t), rising over {warmup} epochs",
    zero_at_match=True,
    family="logits",
    disagreements=(
        "Temperature, weight and the weight of NCKD were tuned to each pair of networks: T of 2 or 3, weights of 9 to 18, NCKD's 2 or 8.",
    ),
    per_sample=True,
)
class LogitStdDKD(DKD):
    """Decoupled knowledge distillation, with each network's logits centred and divided by their standard deviation."""

    temperature: float = Field(2.0, gt=0, description="the base temperature, in standard deviations")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return logit_std_dkd(
            student.logits,
            teacher.logits,
            batch.targets,
            target_weight=self.target_weight,
            nontarget_weight=self.nontarget_weight,
            temperature=self.temperature,
        )
