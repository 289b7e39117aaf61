"""N-to-one representation matching: the teacher's map several times over (Liu et al., 2023)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.card import Coefficients, Setting, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import connector, full_precision, mean_square, same_size, taught, wide

STEPS = ((1 / 24, 0.1), (1 / 12, 0.5), (3 / 4, 1.0), (7 / 8, 0.5), (1.0, 0.1))
"""until which share of the epochs matching has which factor"""


def norm(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Mean of (s_n - t)^2 over B x C x H x W, summed over the N segments s_n of C channels each.

    The student's expanded map (B, N C, H, W) and the teacher's (B, C, H, W); of two sizes the larger is average-pooled.
    """
    s, t = same_size(wide(student_map), taught(teacher_map))
    channels = t.shape[1]
    segments: Tensor = torch.unflatten(s, 1, (-1, channels))
    return mean_square(segments - t[:, None]) * segments.shape[1]


class Transform(nn.Module):
    """The feature transform: the student's last map at N times the teacher's channels, and back onto the student's embedding.

    Two 1x1 convolutions with batch norm and nothing between them: one linear map in evaluation.
    """

    def __init__(self, student: Shapes, teacher: Shapes, segments: int) -> None:
        super().__init__()
        expanded = segments * teacher.stages[-1].channels
        self.expand = connector(student.stages[-1].channels, expanded)
        self.contract = connector(expanded, student.embedding)

    def forward(self, features: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """The expanded map (B, N C, H, W), and the embedding (B, D) with the mean of the contracted map added."""
        expanded = self.expand(features)
        return expanded, embedding + self.contract(expanded).mean((2, 3))


def classified(embedding: Tensor, classifier: nn.Module) -> Tensor:
    """The classifier's logits (B, K) of an embedding (B, D), in float32 at least."""
    weights = next(classifier.parameters(), None)
    return wide(classifier(embedding if weights is None else embedding.to(weights.dtype)))


@register(
    "norm",
    needs=Needs(Need.STAGES | Need.EMBEDDING | Need.CLASSIFIER | Need.TARGETS, Need.STAGES),
    published=Coefficients(task=0.0, term=1.0),
    source=Source(
        "NORM: Knowledge Distillation via N-to-One Representation Matching",
        2023,
        "https://arxiv.org/abs/2305.13803",
        equation="N-to-one representation matching",
        weights="0.5 CE + L without Hinton's loss, the largest of the factors on CE that the authors' script for CIFAR-100 tries",
    ),
    formula="{task} * CE + w * sum over {segments} segments of mean((E(F_s)_n - F_t)^2), w = 0.1, 0.5, 1, 0.5, 0.1 in turn",
    search=tuple(Setting({"task": task}) for task in (0.5, 0.25, 0.125, 0.0625, 1.0)),
    stages="last",
    family="features",
    deploys="the student with the feature transform, a linear map, between its last stage and its classifier",
    disagreements=(
        "The authors' code also normalises the logits of both networks over the classes and multiplies them by 2.5, in training and "
        "evaluation, which the paper does not mention; this is left out.",
        "The authors' factors change after 10, 20, 180 and 210 of 240 epochs; here at these shares of a run of any length. On ImageNet "
        "they change at others.",
        "The authors have 4 segments by default, as here, and 8 in their script for CIFAR-100.",
        "The authors pool the larger of two maps by maximum; here by average, after the expansion.",
        "The authors write the transform into the student; here it adds to the embedding, which is the same where that is the mean of the "
        "last map. There it merges with the classifier, so that the shipped student can be as small as the trained one; costs are stated "
        "unmerged.",
    ),
)
class NORM(Method):
    """The student's last map, expanded to several segments, each on the teacher's map, and contracted back for its own classifier.

    The loss holds the cross-entropy of the logits that are shipped, of the embedding with the contracted map added;
    a recipe's label smoothing does not reach it.
    """

    segments: int = Field(4, ge=1, description="how often the teacher's map is matched (N)")
    task: float = Field(0.5, ge=0, description="factor on cross-entropy beside the matching")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Transform(student, teacher, self.segments)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        expanded, logits = self._through(student, module)
        matching = norm(expanded, teacher.stages[-1])
        return self.task * F.cross_entropy(logits, batch.targets) + factor(batch.clock) * matching

    def deploy(self, student: Outputs, module: nn.Module) -> Tensor:
        return self._through(student, module)[1]

    def _through(self, student: Outputs, module: nn.Module) -> tuple[Tensor, Tensor]:
        """The expanded map, and the logits of what is shipped."""
        features, embedding = wide(student.stages[-1]), wide(student.embedding)
        with full_precision(features):
            expanded, moved = cast(Transform, module)(features, embedding)
            return expanded, classified(moved, student.classifier)


def factor(clock: Progress) -> float:
    """The factor on matching in an epoch: it rises to 1 at the start and falls again towards the end."""
    return next((value for until, value in STEPS if clock.epoch < until * clock.epochs), STEPS[-1][1])
