"""Wasserstein distance between class probabilities: what is moved from class to class costs by how unlike they are (Lv et al., 2024)."""

from __future__ import annotations

import math
from typing import Literal, cast

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
from kdzoo.errors import InputError
from kdzoo.methods._ops import classifier_of, embeddings_of, full_precision, normalise, target_or_not, taught, wide, without_target

CostsOf = Literal["cka", "classifier"]

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


def sharpen(distances: Tensor, sharpness: float) -> Tensor:
    """Costs from distances: 1 - exp(-sharpness d), 0 on the diagonal."""
    return 1 - (-sharpness * distances.clamp(min=0).fill_diagonal_(0)).exp()


def distances_by_cka(features: Tensor) -> Tensor:
    """1 - CKA of each two classes, with linear kernels: (K, K) from features (K, N, D) of N samples a class.

    CKA is <X_a X_a^T, X_b X_b^T> / (|X_a X_a^T| |X_b X_b^T|), X_a the features of class a less their mean: of each two classes,
    samples of the same place are compared.
    """
    centred = features - features.mean(1, keepdim=True)
    kernels = normalise((centred @ centred.mT).flatten(1))
    return 1 - kernels @ kernels.T


def distances_by_classifier(classifier: nn.Module, width: int) -> Tensor:
    """1 - cos between the rows of each two classes in a linear classifier of (B, width): (K, K)."""
    parameter = next(classifier.parameters(), None)
    like = torch.zeros(1) if parameter is None else parameter.detach()
    with torch.no_grad():
        at_zero = classifier(like.new_zeros(1, width))
        rows = wide(classifier(torch.eye(width, dtype=like.dtype, device=like.device)) - at_zero).T
    directions = normalise(rows)
    return 1 - directions @ directions.T


def first_of_each(targets: Tensor, classes: int, most: int) -> Tensor:
    """The positions of the first `most` samples of each class, or of as many as the smallest has: (classes, n).

    Raises InputError where a class has fewer than two.
    """
    counts = torch.bincount(targets, minlength=classes)
    if (least := int(counts.min())) < 2:
        raise InputError(
            f"costs: cka compares at least two training samples of each class, but class {int(counts.argmin())} has {least}; "
            "costs=classifier reads none"
        )
    return torch.stack([(targets == k).nonzero().flatten()[: min(most, least)] for k in range(classes)])


class Costs(nn.Module):
    """What it costs to move probability from class to class, which stays as it is."""

    cost: Tensor

    def __init__(self, cost: Tensor) -> None:
        super().__init__()
        self.register_buffer("cost", cost)


@register(
    "wkd_l",
    version="2",
    needs=Needs(Need.LOGITS | Need.TARGETS, Need.LOGITS),
    source=Source(
        "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation",
        2024,
        "https://arxiv.org/abs/2412.08139",
        equation="WKD-L, with costs by CKA",
        weights="CE + L_target + 600 L_transport at T = 8, as in the authors' settings for resnet32x4 to resnet8x4 on CIFAR-100",
    ),
    formula="-p_t(y) log p_s(y) + {transport_weight} * OT(softmax(s / {temperature}), softmax(t / {temperature})) over the classes but y, "
    "the transport along half a cosine to 0 after {constant} of the epochs",
    zero_at_match=False,
    family="logits",
    disagreements=(
        "CKA pairs samples of two classes in an arbitrary order. Here features are embeddings, of the first 100 training samples of each "
        "class in the order of their content, which is the same wherever the files come from. The authors' program for CIFAR takes every "
        "position of the last map of all 500 images of a class as a sample, so that classes share what the positions have in common; the "
        "one for ImageNet takes class scores.",
        "The authors' program has 1 - cosine between the classes' rows of the teacher's classifier as another cost: costs = classifier, "
        "which needs no pass over samples. It was the only one in version 1 of this method.",
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

    How near is measured once, before the first step, by a pass of the teacher over some training samples of each class.
    """

    transport_weight: float = Field(600.0, ge=0, description="factor on the cost of the transport, beside the target's part")
    temperature: float = Field(8.0, gt=0, description="softens the softmaxes over the other classes")
    regularisation: float = Field(0.05, ge=0.05, description="the entropic term of Sinkhorn's algorithm (eta of the paper)")
    iterations: int = Field(10, ge=1, description="of Sinkhorn's algorithm")
    costs: CostsOf = Field(
        "cka", description="cka: from 1 - CKA of the teacher's embeddings; classifier: from 1 - cos of its classifier's rows"
    )
    samples: int = Field(100, ge=2, description="of each class that CKA compares, fewer where a class has fewer")
    sharpness: float = Field(1.0, gt=0, description="of the costs 1 - exp(-sharpness * distance) (kappa of the paper)")
    constant: float = Field(0.625, ge=0, le=1, description="share of the epochs after which the transport's weight begins to fall to 0")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        distances = {"cka": self.by_cka, "classifier": self.by_classifier}[self.costs](teacher, data)
        return Costs(sharpen(distances, self.sharpness))

    def by_cka(self, teacher: Shapes, data: DataFacts) -> Tensor:
        places = first_of_each(data.targets, data.classes, self.samples)
        features = embeddings_of(teacher, places.flatten(), advice="costs=classifier reads its classifier in their place")
        return distances_by_cka(features.view(*places.shape, -1).cpu().double()).to(features.dtype)

    def by_classifier(self, teacher: Shapes, data: DataFacts) -> Tensor:
        return distances_by_classifier(classifier_of(teacher, use="reads"), teacher.embedding)

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
