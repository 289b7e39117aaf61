"""Relational knowledge distillation: distances and angles among the batch (Park et al., 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source, in_doses
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import squared_distances, taught, wide

DISTANCE_WEIGHT, ANGLE_WEIGHT = 25.0, 50.0
"""as published for classification on CIFAR-100"""


def rkd(
    student_embedding: Tensor, teacher_embedding: Tensor, *, distance_weight: float = DISTANCE_WEIGHT, angle_weight: float = ANGLE_WEIGHT
) -> Tensor:
    """distance_weight times the distance-wise loss plus angle_weight times the angle-wise loss (equations 4 to 7).

    Embeddings (B, D), widths may differ. Distances are divided by the mean of the batch's positive ones; angles are
    the cosines at every sample between every two others. Smooth L1, mean over all B x B distances and all B x B x B
    angles, zeros of degenerate pairs and triples included, as in the code behind the published tables.
    """
    embeddings = wide(student_embedding), taught(teacher_embedding)
    s, t = (separations(embedding) for embedding in embeddings)
    distance = F.smooth_l1_loss(relative_distances(s), relative_distances(t))
    angle = F.smooth_l1_loss(cosines(s), cosines(t))
    return (distance_weight * distance + angle_weight * angle).to(embeddings[0].dtype)


def separations(embedding: Tensor) -> Tensor:
    """Squared distances (B, B) in float64, zero where two samples coincide, that is, are nearer than 3e-7 of the widest distance.

    Distances and angles are functions of these alone. In float64 because both divide by small ones, whose rounding in
    products of rows is that of the largest.
    """
    squares = squared_distances(embedding.double())
    return torch.where(squares > 1e-13 * squares.amax(), squares, 0.0)


def relative_distances(squares: Tensor) -> Tensor:
    """Distances (B, B), 1e-6 at least between two samples, over their mean; zero on the diagonal."""
    others = ~torch.eye(len(squares), dtype=torch.bool, device=squares.device)
    distances = torch.where(others, squares.clamp(min=1e-12).sqrt(), 0.0)
    return distances / (distances.sum() / others.sum().clamp(min=1)).clamp(min=torch.finfo(squares.dtype).tiny)


def cosines(squares: Tensor) -> Tensor:
    """cos of the angle at i between j and k, for all (i, j, k): (B, B, B); zero where j or k coincides with i.

    By the law of cosines, (d_ij^2 + d_ik^2 - d_jk^2) / (2 d_ij d_ik), in which the width of the embedding is gone.
    """
    apart = squares > 0
    inverse = torch.where(apart, torch.where(apart, squares, 1.0).rsqrt(), 0.0)
    return (squares[:, :, None] + squares[:, None] - squares) * (inverse[:, :, None] * inverse[:, None] / 2)


@register(
    "rkd",
    needs=Need.EMBEDDING,
    source=Source(
        "Relational Knowledge Distillation",
        2019,
        "https://arxiv.org/abs/1904.05068",
        equation="4 to 8",
        weights="CE + 25 distance + 50 angle as in the CIFAR-100 tables of CRD (arXiv 1910.10699)",
    ),
    formula="{distance_weight} * smoothL1(distances) + {angle_weight} * smoothL1(angles)",
    zero_at_match=True,
    search=in_doses(3.0, 1.0, 0.1, 0.3, 0.03),
    family="relations",
    disagreements=(
        "The paper sums over pairs and triples of different samples; RepDistiller, mdistiller and Knowledge-Distillation-Zoo, which "
        "agree with each other, take the mean over B^2 and B^3 with the zeros of degenerate ones, as here.",
        "mmrazor divides the embeddings by their norm first, with the same weights.",
        "Published code forms B x B x D differences; here distances and angles come from the products of embeddings, in float64, with the "
        "same result.",
        "The weights of 25 and 50 belong to classification on CIFAR-100; for metric learning the paper has 1 and 2.",
    ),
)
class RKD(Method):
    """Distances and angles among the embeddings of a batch."""

    distance_weight: float = Field(DISTANCE_WEIGHT, ge=0, description="factor on the distance-wise loss")
    angle_weight: float = Field(ANGLE_WEIGHT, ge=0, description="factor on the angle-wise loss")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return rkd(student.embedding, teacher.embedding, distance_weight=self.distance_weight, angle_weight=self.angle_weight)
