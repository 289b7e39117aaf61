"""Wasserstein distance between class probabilities: what is moved from class to class costs by how unlike they are (Lv et al., 2024)."""

from __future__ import annotations

import math
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import classifier_of, full_precision, normalise, target_or_not, taught, wide, without_target

LEAST = 1e-8
"""added to costs and to what is divided by, as published"""


def wkd_l(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    cost: Tensor,
    *,
    transport_weight: float,
    temperature: float,
    regularisation: float,
    iterations: int,
) -> Tensor:
    """-p_t(y) log p_s(y) + transport_weight sum_ij F_ij cost_ij, mean over the batch; no T^2.

    Logits (B, K), targets y (B,), cost (K, K) of moving probability from class i to class j. p are softmaxes without temperature;
    F is the flow between the softmaxes at T over the K - 1 classes other than y, the student's on the rows: Sinkhorn's algorithm
    with entropic regularisation, a fixed number of iterations, the rows' sums met at the end.
    """
    s, t = wide(student_logits), taught(teacher_logits)
    target = target_or_not(t, targets)[:, 0].exp() * target_or_not(s, targets)[:, 0]
    ours, theirs = (with_zero_at(without_target(z / temperature, targets).softmax(1), targets) for z in (s, t))
    transport = transport_cost(ours, theirs, targets, cost.to(s.dtype), regularisation=regularisation, iterations=iterations)
    return (transport_weight * transport - target).mean()


def with_zero_at(others: Tensor, targets: Tensor) -> Tensor:
    """Probabilities of the K - 1 other classes (B, K - 1) among all classes, 0 at the target: (B, K)."""
    classes = torch.arange(others.shape[1], device=others.device).expand(len(others), -1)
    return others.new_zeros(len(others), others.shape[1] + 1).scatter(1, classes + (classes >= targets[:, None]), others)


def transport_cost(rows: Tensor, columns: Tensor, targets: Tensor, cost: Tensor, *, regularisation: float, iterations: int) -> Tensor:
    """The cost of the flow of each sample between two distributions (B, K) that are 0 at its target: (B,).

    One kernel serves all samples: a class whose probability is 0 on both sides has no part in a flow, as if its row and column
    had been taken out of the cost.
    """
    costs = cost.clamp(min=0) + LEAST
    kernel = (-costs / regularisation).exp()
    start = rows.new_full(rows.shape, 1 / (rows.shape[1] - 1)).scatter(1, targets[:, None], 0.0)
    with full_precision(rows):
        of_rows = start
        for _ in range(iterations):
            of_columns = columns / (of_rows @ kernel + LEAST)
            of_rows = rows / (of_columns @ kernel.T + LEAST)
        return ((of_rows @ (kernel * costs)) * of_columns).sum(1)


def class_costs(classifier: nn.Module, width: int, sharpness: float) -> Tensor:
    """1 - exp(-sharpness (1 - cos)) of each two classes, cos between their rows of a linear classifier of (B, width): (K, K)."""
    parameter = next(classifier.parameters(), None)
    like = torch.zeros(1) if parameter is None else parameter.detach()
    with torch.no_grad():
        at_zero = classifier(like.new_zeros(1, width))
        rows = wide(classifier(torch.eye(width, dtype=like.dtype, device=like.device)) - at_zero).T
    directions = normalise(rows)
    distances = (1 - directions @ directions.T).clamp(min=0).fill_diagonal_(0)
    return 1 - (-sharpness * distances).exp()


class Costs(nn.Module):
    """What it costs to move probability from class to class, which stays as it is."""

    cost: Tensor

    def __init__(self, cost: Tensor) -> None:
        super().__init__()
        self.register_buffer("cost", cost)


@register(
    "wkd_l",
    needs=Needs(Need.LOGITS | Need.TARGETS, Need.LOGITS),
    source=Source(
        "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation",
        2024,
        "https://arxiv.org/abs/2412.08139",
        equation="WKD-L",
        weights="CE + L_target + 600 L_transport at T = 8, as in the authors' settings for resnet32x4 to resnet8x4 on CIFAR-100",
    ),
    formula="-p_t(y) log p_s(y) + {transport_weight} * OT(softmax(s / {temperature}), softmax(t / {temperature})) over the classes but y, "
    "the transport along half a cosine to 0 after {constant} of the epochs",
    zero_at_match=False,
    family="logits",
    disagreements=(
        "The paper's costs are 1 - CKA between the teacher's features of two classes, from a pass over the training set whose pairing of "
        "samples is arbitrary. Here they are the authors' alternative, 1 - cosine between the classes' rows of the teacher's classifier, "
        "which needs no pass and is the same for any order of the samples.",
        "Ten iterations are not convergence: with the authors' costs for CIFAR-100 at T = 8 the value is 0.059 after 10 and 0.071 after "
        "100, and it is above zero where the two networks agree.",
        "A regularisation below 0.05 is refused: the kernel's entries are lost beside the published 1e-8, and with them the transport.",
        "Weight and T are tuned to each pair: 200 at T = 6 for wrn_40_2 to ShuffleNetV1; for ImageNet 30 and 25 at T = 2, decaying from "
        "the first epoch, and a sharpness of 2 for ResNet50 to MobileNetV1.",
        "The authors keep a kernel for each sample; here one serves the batch, with the same values and gradients.",
        "WKD-F, the same authors' loss of feature maps, is another method and is not here.",
    ),
    per_sample=True,
)
class WKDL(Method):
    """The cost of turning the student's probabilities into the teacher's, where like classes are near each other.

    Costs are between the rows of the teacher's classifier; refused where it has no single one.
    """

    transport_weight: float = Field(600.0, ge=0, description="factor on the cost of the transport, beside the target's part")
    temperature: float = Field(8.0, gt=0, description="softens the softmaxes over the other classes")
    regularisation: float = Field(0.05, ge=0.05, description="the entropic term of Sinkhorn's algorithm (eta of the paper)")
    iterations: int = Field(10, ge=1, description="of Sinkhorn's algorithm")
    sharpness: float = Field(1.0, gt=0, description="of the costs 1 - exp(-sharpness * distance) (kappa of the paper)")
    constant: float = Field(0.625, ge=0, le=1, description="share of the epochs after which the transport's weight begins to fall to 0")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Costs(class_costs(classifier_of(teacher, use="reads"), teacher.embedding, self.sharpness))

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return wkd_l(
            student.logits,
            teacher.logits,
            batch.targets,
            cast(Costs, module).cost,
            transport_weight=self.transport_weight * self.decay(batch.clock),
            temperature=self.temperature,
            regularisation=self.regularisation,
            iterations=self.iterations,
        )

    def decay(self, clock: Progress) -> float:
        """The factor on the transport's weight in an epoch: 1, then half a cosine to 0 in the last of several."""
        number, first = clock.epoch + 1, self.constant * clock.epochs
        return 1.0 if number <= first or clock.epochs == 1 else (1 + math.cos(math.pi * (number - first) / (clock.epochs - first))) / 2
