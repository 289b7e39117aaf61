"""Decoupled knowledge distillation: the target's share and the other classes apart (Zhao et al., 2022)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.card import HIGH_FIRST, Setting, Source, in_doses
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import divergence, linear_warmup, target_or_not, taught, wide, without_target


def dkd(
    student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, *, target_weight: float, nontarget_weight: float, temperature: float
) -> Tensor:
    """T^2 (target_weight TCKD + nontarget_weight NCKD), mean over the batch (equation 7).

    Logits (B, K), targets (B,). TCKD is the KL divergence of the target's probability against all others together at
    temperature T, NCKD that of the softmaxes over the K - 1 other classes; zero for K = 2. With the weights 1 and
    1 - p_t(target) it is Hinton's loss.
    """
    weights = {"target_weight": target_weight, "nontarget_weight": nontarget_weight}
    return decoupled(wide(student_logits), taught(teacher_logits), targets, **weights, temperature=temperature).mean()


def decoupled(s: Tensor, t: Tensor, targets: Tensor, *, target_weight: float, nontarget_weight: float, temperature: float) -> Tensor:
    """`dkd` of each sample: (B,)."""
    s, t = s / temperature, t / temperature
    target = divergence(target_or_not(s, targets), target_or_not(t, targets))
    nontarget = divergence(*(without_target(z, targets).log_softmax(1) for z in (s, t)))
    return temperature**2 * (target_weight * target + nontarget_weight * nontarget)


@register(
    "dkd",
    needs=Needs(Need.LOGITS | Need.TARGETS, Need.LOGITS),
    source=Source(
        "Decoupled Knowledge Distillation",
        2022,
        "https://arxiv.org/abs/2203.08679",
        equation="7",
        weights="CE + TCKD + 8 NCKD at T = 4 with a warm-up of 20 epochs, as in mdistiller for resnet32x4 to resnet8x4",
    ),
    formula="{temperature}^2 * ({target_weight} * TCKD + {nontarget_weight} * NCKD), rising over {warmup} epochs",
    search=(
        *in_doses(*HIGH_FIRST, nontarget_weight=8.0, temperature=4.0),
        *(
            Setting({"nontarget_weight": beta, "temperature": temperature})
            for beta, temperature in [(2.0, 4.0), (6.0, 4.0), (2.0, 1.0), (0.5, 1.0)]
        ),
        Setting({"nontarget_weight": 2.0, "temperature": 2.0}, weight=3.0),
    ),
    zero_at_match=True,
    family="logits",
    disagreements=(
        "mdistiller takes the logarithm of summed probabilities in TCKD, which is infinite for large gaps between logits; here it is a "
        "difference of log-sum-exps.",
        "mdistiller masks the target by subtracting 1000, which leaves it in the softmax where logits are that far apart; here the target "
        "is taken out.",
        "The weight of NCKD is tuned to each pair of networks. On CIFAR-100 it is 2 for resnet56 to resnet20 and resnet110 to resnet32, 6 "
        "for vgg13 to vgg8 and to MobileNetV2 and for wrn_40_2 to wrn_16_2 and to wrn_40_1, 8 for the others; on ImageNet, at T = 1, 0.5 "
        "for ResNet34 to ResNet18 and 2 for ResNet50 to MobileNetV1.",
        "The warm-up counts epochs, 20 of 240 on CIFAR-100 and 1 on ImageNet; it is not scaled to shorter recipes.",
    ),
    per_sample=True,
)
class DKD(Method):
    """The target's probability against the rest, and the other classes among themselves, weighed apart."""

    target_weight: float = Field(1.0, ge=0, description="factor on the target's part (alpha of the paper)")
    nontarget_weight: float = Field(8.0, ge=0, description="factor on the other classes' part (beta of the paper)")
    temperature: float = Field(4.0, gt=0, description="softens both softmaxes")
    warmup: int = Field(20, ge=1, description="epochs over which the weight rises")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return dkd(
            student.logits,
            teacher.logits,
            batch.targets,
            target_weight=self.target_weight,
            nontarget_weight=self.nontarget_weight,
            temperature=self.temperature,
        )

    def ramp(self, clock: Progress) -> float:
        return linear_warmup(clock, self.warmup)
