"""Streamlined distillation: Hinton's loss and the directions of the logits, whitened over the batch (Jeong, Lee and Choi, 2026)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Coefficients, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import full_precision, normalise, taught, wide
from kdzoo.methods.hinton import hinton


def skd(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, ridge: float) -> Tensor:
    """T^2 KL(softmax(t / T) || softmax(s / T)), summed over classes, mean over the batch, plus `direction`.

    Logits (B, K).
    """
    return hinton(student_logits, teacher_logits, temperature=temperature) + direction(student_logits, teacher_logits, ridge=ridge)


def direction(student_logits: Tensor, teacher_logits: Tensor, *, ridge: float) -> Tensor:
    """Mean over i of sqrt(a_i' (cov(A) + ridge I)^-1 a_i), A = (N_s N_s' - N_t N_t') / K, N the logits' rows divided by their norms.

    Logits (B, K), a_i the rows of A (B, B). The covariance has the rows as observations and divides by B - 1; the gradient goes
    through its inverse. Neither network's scale counts. Zero, with a gradient of zero, where A is zero, and for one sample.
    """
    s, t = normalise(wide(student_logits)), normalise(taught(teacher_logits))
    if len(s) == 1:
        return 0 * s.sum()
    with full_precision(s):
        apart = (s @ s.T - t @ t.T) / s.shape[1]
        columns = apart.T
        centred = columns - (columns.sum(1) / len(s))[:, None]
        covariance = centred @ centred.T / (len(s) - 1)  # torch.cov, which reads its number of samples back from the device
        covariance = covariance + ridge * torch.eye(len(s), dtype=s.dtype, device=s.device)
        lower, _ = torch.linalg.cholesky_ex(covariance)  # does not wait for the device: with a ridge > 0 there is always a factor
        # a' M^-1 a is the squared norm of L^-1 a; a norm has a gradient of zero at zero, where a root has none
        whitened = torch.linalg.solve_triangular(lower, apart.T, upper=False)
    distances: Tensor = torch.linalg.vector_norm(whitened, dim=0)
    return distances.mean()


@register(
    "skd",
    needs=Need.LOGITS,
    published=Coefficients(task=0.1, term=0.9),
    scale=0.9,
    source=Source(
        "StreamLined Knowledge Distillation",
        2026,
        "https://github.com/HyunJunSik/StreamLined",
        equation="Hinton's loss and the direction term",
        weights="0.1 CE + 0.9 L at T = 4 with lambda = 0.1, the defaults of the authors' code for CIFAR-100",
    ),
    formula="{temperature}^2 * KL + mean_i sqrt(a_i' (cov(A) + {ridge} I)^-1 a_i), A = (N_s N_s' - N_t N_t') / K",
    zero_at_match=True,
    family="logits",
    disagreements=(
        "The authors' code multiplies its masks (samples on which the teacher is surer than on the median one, classes that it sees more "
        "than the median one) with losses that are already means, so that they are factors of about a half: its weight of 0.9 acts as "
        "0.45. Here there are no masks.",
        "In the authors' code the gradient is NaN where the two networks' directions agree; here it is zero.",
        "Divided by K and whitened with a ridge of 0.1, the direction term is small beside the first: with random logits of deviation 2, "
        "100 classes and 64 samples its gradient is a hundredth of T^2 KL's.",
        "The authors tuned the weights to each pair and name one: 0.5 and 0.5 for resnet32x4 to resnet8x4. For ImageNet T = 1.",
        "torchdistill's version leaves out T^2 and gives both parts the weight 1.",
    ),
)
class SKD(Method):
    """The teacher's softened probabilities, and the angles between samples' logits, whitened over the batch."""

    temperature: float = Field(4.0, gt=0, description="softens both softmaxes of the first part")
    ridge: float = Field(0.1, gt=0, description="what is added to the covariance's diagonal (lambda of the paper)")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return skd(student.logits, teacher.logits, temperature=self.temperature, ridge=self.ridge)
