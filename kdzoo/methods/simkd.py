"""The teacher's classifier reused on the student's projected map (Chen et al., 2022)."""

from __future__ import annotations

from copy import deepcopy
from typing import cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Coefficients, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import BatchNorm, Rectifier, classifier_of, full_precision, mean_square, same_size, taught, wide


def simkd(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Mean of (P(s) - t)^2 over all of B x C x H x W (L_SimKD).

    The student's last map as the projector gives it and the teacher's, (B, C, H, W) with equal channels; of two sizes
    the larger is average-pooled.
    """
    s, t = same_size(wide(student_map), taught(teacher_map))
    return mean_square(s - t)


class Reuse(nn.Module):
    """The projector of the student's last map, and the teacher's frozen classifier: the head that is shipped."""

    def __init__(self, student: Shapes, teacher: Shapes, classifier: nn.Module, factor: int) -> None:
        super().__init__()
        s, t = student.stages[-1], teacher.stages[-1]
        self.size = (min(s.height, t.height), min(s.width, t.width))
        width, middle = teacher.embedding, max(1, teacher.embedding // factor)
        self.projector = nn.Sequential(
            nn.Conv2d(s.channels, middle, 1, bias=False),
            BatchNorm(middle),
            nn.ReLU(),
            nn.Conv2d(middle, middle, 3, padding=1, bias=False),
            BatchNorm(middle),
            nn.ReLU(),
            nn.Conv2d(middle, width, 1, bias=False),
            BatchNorm(width),
        )
        self.rectifier = Rectifier()
        self.classifier = deepcopy(classifier).requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        """The projected map (B, D, h, w) of the student's last one, pooled to the teacher's size first where it is larger."""
        return cast(Tensor, self.rectifier(self.projector(F.adaptive_avg_pool2d(features, self.size))))


@register(
    "simkd",
    needs=Needs(Need.STAGES, Need.STAGES | Need.EMBEDDING),
    published=Coefficients(task=0.0, term=1.0),
    source=Source(
        "Knowledge Distillation with the Reused Teacher Classifier",
        2022,
        "https://arxiv.org/abs/2203.14001",
        equation="L_SimKD",
        weights="L alone, without cross-entropy, and a projector of half the width, as in the authors' code",
    ),
    formula="mean((P(F_s) - F_t)^2), P of width D / {factor}",
    stages="last",
    family="features",
    deploys="the student without its classifier, with the projector and the teacher's classifier",
    disagreements=(
        "Published projectors end with a ReLU, which cannot reach maps below zero; here it cuts at the smallest value that the teacher "
        "gave, which is the ReLU for teachers that end in one.",
        "The authors' code takes teachers whose embedding is the mean of their last map. Of others (class tokens, norms after the last "
        "stage, wider heads) the embedding itself is compared here with the mean of the projected map.",
        "Accuracies are those of a larger network than the student: projector and classifier come on top.",
    ),
)
class SimKD(Method):
    """The teacher's last map from the student's by a projector, and then the teacher's own classifier.

    What is shipped is the student's stages with the projector and the teacher's classifier, a frozen copy of it.
    """

    factor: int = Field(2, ge=1, description="the teacher's width over the projector's")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Reuse(student, teacher, classifier_of(teacher, use="reuses"), self.factor)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        reuse, embedding = cast(Reuse, module), taught(teacher.embedding)
        target, pooled = last_map(taught(teacher.stages[-1]), embedding)
        reuse.rectifier.observe(torch.where(pooled, target.amin(), embedding.amin()))
        with full_precision(embedding):
            projected = reuse(wide(student.stages[-1]))
        return torch.where(pooled, simkd(projected, target), simkd(projected, embedding[:, :, None, None]))

    def deploy(self, student: Outputs, module: nn.Module) -> Tensor:
        reuse = cast(Reuse, module)
        features = wide(student.stages[-1])
        with full_precision(features):
            return cast(Tensor, reuse.classifier(reuse(features).mean((2, 3))))


def last_map(features: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
    """The map (B, D, H, W) whose mean over the cells is the embedding (B, D), and whether the last stage is that map.

    Where it is not, the embedding as a map of one cell stands for it. Half precision moves a mean by a hundredth.
    """
    if features.shape[1] != embedding.shape[1]:
        return embedding[:, :, None, None], torch.zeros((), dtype=torch.bool, device=embedding.device)
    apart = torch.linalg.vector_norm(features.mean((2, 3)) - embedding)
    return features, apart <= 0.02 * torch.linalg.vector_norm(embedding)
