"""Instance relationship graph: the samples of a batch, how far apart they are, and how far each moves (Liu et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.methods._ops import same_size, squared_distances, taught, wide

URL = "https://openaccess.thecvf.com/content_CVPR_2019/html/Liu_Knowledge_Distillation_via_Instance_Relationship_Graph_CVPR_2019_paper.html"


def irg(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_embedding: Tensor,
    teacher_embedding: Tensor,
    student_stages: Sequence[Tensor],
    teacher_stages: Sequence[Tensor],
    *,
    vertex_weight: float,
    edge_weight: float,
    transform_weight: float,
) -> Tensor:
    """vertex_weight V + edge_weight E + transform_weight T, each a mean of squared differences (the losses of IRG and its transformation).

    V: logits (B, K), mean over both. E: squared distances between samples (B, B) over the largest of the batch, zero on
    the diagonal; mean over B x B and over the graphs of the embedding (B, D) and of each stage (B, C, H, W). T: how far
    each sample moves from a stage to the next (B,), over the farthest of the batch; mean over the batch and over pairs
    of consecutive stages, zero where there is one stage alone. Widths, channels and sizes may differ.
    """
    vertex = F.mse_loss(wide(student_logits), taught(teacher_logits))
    s, t = [wide(stage) for stage in student_stages], [taught(stage) for stage in teacher_stages]
    graphs = zip([wide(student_embedding), *s], [taught(teacher_embedding), *t], strict=True)
    edge = mean([F.mse_loss(edges(a), edges(b)) for a, b in graphs])
    steps = zip(pairwise(s), pairwise(t), strict=True)
    transform = mean([vertex.new_zeros(())] if len(s) < 2 else [F.mse_loss(moved(*a), moved(*b)) for a, b in steps])
    return vertex_weight * vertex + edge_weight * edge + transform_weight * transform


def mean(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).mean()


def edges(features: Tensor) -> Tensor:
    """Squared distances (B, B) between the samples of (B, ...) over the largest of them."""
    return over_largest(squared_distances(features.flatten(1)))


def moved(shallow: Tensor, deep: Tensor) -> Tensor:
    """The squared distance (B,) of each sample's two maps, brought to one shape, over the largest of the batch."""
    a, b = (maps.flatten(2) for maps in same_size(shallow, deep))
    channels = min(a.shape[1], b.shape[1])
    return over_largest((of_channels(a, channels) - of_channels(b, channels)).square().sum((1, 2)))


def of_channels(features: Tensor, channels: int) -> Tensor:
    """(B, C, N) with neighbouring channels averaged to `channels`: pairs of them where C is twice that."""
    return features if features.shape[1] == channels else F.adaptive_avg_pool2d(features[:, None], (channels, features.shape[2]))[:, 0]


def over_largest(values: Tensor) -> Tensor:
    return values / values.amax().clamp(min=1e-12)


@register(
    "irg",
    needs=Need.LOGITS | Need.EMBEDDING | Need.STAGES,
    scale=1.0,
    source=Source(
        "Knowledge Distillation via Instance Relationship Graph",
        2019,
        URL,
        equation="the losses of IRG and of its transformation, layers one to one",
        weights="CE + L with 0.1 for vertices, 5 for edges and 5 for transformations as in Knowledge-Distillation-Zoo",
    ),
    formula="{vertex_weight} * mse(logits) + {edge_weight} * mse(squared distances / max) + {transform_weight} * mse(moved between the "
    "last two stages / max)",
    zero_at_match=True,
    family="relations",
    disagreements=(
        "Knowledge-Distillation-Zoo, as here, has logits as vertices and the graphs of the last two stages and the embedding, layers one "
        "to one; code built on RepDistiller has embeddings as vertices and also compares how distances change between stages.",
        "Knowledge-Distillation-Zoo brings the maps of two stages together by averaging pairs of channels, which is for networks that "
        "double them; here any number of channels is averaged to the smaller.",
        "All distances are divided by the largest of the batch, so that the two samples farthest apart have a part in every gradient.",
    ),
)
class IRG(Method):
    """The graph of a batch: logits as vertices, distances as edges, and how far each sample moves between the last two stages."""

    vertex_weight: float = Field(0.1, ge=0, description="factor on the vertices: logits")
    edge_weight: float = Field(5.0, ge=0, description="factor on the edges: distances between samples")
    transform_weight: float = Field(5.0, ge=0, description="factor on the transformation from the last stage but one to the last")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        pairs = list(zip(student.stages, teacher.stages, strict=True))
        if len(pairs) < 2 and self.transform_weight > 0:
            names = ", ".join(f"{s} under {t}" for s, t in pairs)
            raise InputError(
                "compares how samples move between the last two stages and needs two paired ones (or transform_weight=0); "
                f"the paired stages are {names}"
            )
        return nn.Module()

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return irg(
            student.logits,
            teacher.logits,
            student.embedding,
            teacher.embedding,
            student.stages[-2:],
            teacher.stages[-2:],
            vertex_weight=self.vertex_weight,
            edge_weight=self.edge_weight,
            transform_weight=self.transform_weight,
        )
