"""Relational knowledge distillation: distances and angles among the batch (Park et al., 2019)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdzoo.method import Method, Source, register
from kdzoo.methods._ops import full_precision, normalised, taught, wide
from kdzoo.signals import Batch, Need, Outputs


def rkd(student_embedding: Tensor, teacher_embedding: Tensor, *, distance_weight: float, angle_weight: float) -> Tensor:
    """distance_weight times the distance-wise loss plus angle_weight times the angle-wise loss (equations 4 to 7).

    Embeddings (B, D), widths may differ. Distances are divided by the mean of the batch's positive ones; angles are
    the cosines at every sample between every two others. Smooth L1, mean over all B x B distances and all B x B x B
    angles, zeros of degenerate pairs and triples included, as in the code behind the published tables.
    """
    s, t = wide(student_embedding), taught(teacher_embedding)
    distance = F.smooth_l1_loss(relative_distances(s), relative_distances(t))
    angle = F.smooth_l1_loss(cosines(s), cosines(t))
    return distance_weight * distance + angle_weight * angle


def relative_distances(embedding: Tensor) -> Tensor:
    """Pairwise Euclidean distances (B, B) over the mean of the positive ones; zero on the diagonal."""
    squares = (embedding[:, None] - embedding[None]).square().sum(-1).clamp(min=1e-12)
    apart = ~torch.eye(len(embedding), dtype=torch.bool, device=embedding.device)
    distances = torch.where(apart, squares.sqrt(), 0.0)
    positive = distances > 0
    mean = distances.sum() / positive.sum().clamp(min=1)
    return distances / mean.clamp(min=torch.finfo(embedding.dtype).tiny)


def cosines(embedding: Tensor) -> Tensor:
    """cos of the angle at i between j and k, for all (i, j, k): (B, B, B); zero where j or k is i."""
    directions = normalised(embedding[None] - embedding[:, None])
    with full_precision(embedding):
        return directions @ directions.transpose(1, 2)


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
    family="relations",
)
class RKD(Method):
    """Distances and angles among the embeddings of a batch."""

    distance_weight: float = Field(25.0, ge=0, description="factor on the distance-wise loss")
    angle_weight: float = Field(50.0, ge=0, description="factor on the angle-wise loss")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return rkd(student.embedding, teacher.embedding, distance_weight=self.distance_weight, angle_weight=self.angle_weight)
