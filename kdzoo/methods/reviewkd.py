"""Knowledge review: each stage of the student, with all deeper ones, on the teacher's (Chen et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.card import Coefficients, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import BatchNorm, full_precision, mean_square, same_size, taught, wide

POOLED = (4, 2, 1)
"""cells a side to which the context loss pools two maps"""


def reviewkd(student_stages: Sequence[Tensor], teacher_stages: Sequence[Tensor]) -> Tensor:
    """The hierarchical context loss: mean squared differences of the maps and of what they are pooled to, summed over stages.

    Maps (B, C, H, W), one to one with equal channels, as the fusion hands them over; of two sizes the larger is
    average-pooled. The whole map weighs 1; of its pools to 4, 2 and 1 cells a side those below its height are used, each
    with half the weight of the one before; the sum is divided by that of the weights. Means are over B x C x h x w.
    """
    total = wide(student_stages[0]).new_zeros(())
    for student, teacher in zip(student_stages, teacher_stages, strict=True):
        s, t = same_size(wide(student), taught(teacher))
        apart, height, width = s - t, s.shape[2], s.shape[3]
        loss, sides = mean_square(apart), [side for side in POOLED if side < height]
        pooled = apart  # pooling is linear: the difference is pooled once instead of both maps
        for halvings, side in enumerate(sides, start=1):
            size = (side, min(side, width))
            pooled = F.adaptive_avg_pool2d(pooled if _nested(apart, pooled, size) else apart, size)
            loss = loss + 0.5**halvings * mean_square(pooled)
        total = total + loss / (2 - 0.5 ** len(sides))
    return total


def _nested(whole: Tensor, pooled: Tensor, size: tuple[int, int]) -> bool:
    """Whether cells of `size` are means of the pooled map's cells, each of which is one of equally many of the whole map's."""
    return all(
        cells % between == 0 and between % few == 0 for cells, between, few in zip(whole.shape[2:], pooled.shape[2:], size, strict=True)
    )


class Fusion(nn.Module):
    """One level of the review: its map weighed against what comes from the deeper levels, cell by cell."""

    def __init__(self, student: int, middle: int, teacher: int, *, deepest: bool) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(student, middle, 1, bias=False), BatchNorm(middle))
        self.weigh = None if deepest else nn.Sequential(nn.Conv2d(2 * middle, 2, 1), nn.Sigmoid())
        self.leave = nn.Sequential(nn.Conv2d(middle, teacher, 3, padding=1, bias=False), BatchNorm(teacher))
        for convolution in (self.enter[0], self.leave[0]):
            nn.init.kaiming_uniform_(cast(nn.Conv2d, convolution).weight, a=1)

    def forward(self, features: Tensor, deeper: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The map at the teacher's size and channels, and what goes on to the next shallower level."""
        fused = self.enter(features)
        if self.weigh is not None and deeper is not None:
            weights = self.weights(fused, deeper)
            deeper = F.interpolate(deeper, size=fused.shape[2:], mode="nearest")
            fused = fused * weights[:, :1] + deeper * weights[:, 1:]
        if tuple(fused.shape[2:]) != size:
            fused = F.interpolate(fused, size=size, mode="nearest")
        return self.leave(fused), fused

    def weights(self, fused: Tensor, deeper: Tensor) -> Tensor:
        """`weigh` of both maps' channels, the deeper map's repeated to the other's size, (B, 2, H, W).

        Its convolution is the sum of one over each map: no map of all channels is made, and the deeper one is weighed
        before it is repeated.
        """
        convolution, sigmoid = cast(nn.Sequential, self.weigh)
        here, there = torch.split(cast(Tensor, convolution.weight), [fused.shape[1], deeper.shape[1]], dim=1)
        below = F.interpolate(F.conv2d(deeper, there), size=fused.shape[2:], mode="nearest")
        return cast(Tensor, sigmoid(F.conv2d(fused, here, cast(Tensor, convolution.bias)) + below))


class Review(nn.Module):
    """The fusion modules from the deepest level, the embedding, to the shallowest stage."""

    def __init__(self, student: Sequence[int], teacher: Sequence[int], middle: int) -> None:
        super().__init__()
        deepest = len(student) - 1
        self.levels = nn.ModuleList(
            Fusion(s, middle, t, deepest=level == deepest) for level, (s, t) in enumerate(zip(student, teacher, strict=True))
        )

    def forward(self, maps: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Maps and the teacher's sizes, shallow to deep; the fused maps in the same order."""
        fused: list[Tensor] = []
        deeper: Tensor | None = None
        for level, features, size in zip(reversed(self.levels), reversed(maps), reversed(sizes), strict=True):
            fused_map, deeper = level(features, deeper, size)
            fused.insert(0, fused_map)
        return fused


@register(
    "reviewkd",
    needs=Needs(Need.STAGES | Need.EMBEDDING, Need.STAGES | Need.EMBEDDING, preact_if_given=True),
    published=Coefficients(task=1.0, term=5.0),
    scale=5.0,
    source=Source(
        "Distilling Knowledge via Knowledge Review",
        2021,
        "https://arxiv.org/abs/2104.09044",
        equation="attention-based fusion and hierarchical context loss",
        weights="CE + 5 L with a ramp over 20 epochs as published for resnet32x4 to resnet8x4; the authors' other CIFAR-100 pairs "
        "have 0.6 (resnet20), 1 (resnet32), 5 and 8 (resnet32x4 to ShuffleNetV2), ImageNet 1 and 8 without a ramp",
    ),
    formula="HCL(ABF(F_s), F_t) over stages, F_t before the activation, and embedding, times min((epoch + 1) / {warmup}, 1)",
    version="2",
    family="features",
    disagreements=(
        "The authors' code reads the student's maps after their last activation on CIFAR-100, as here, and before it on ImageNet.",
        "Teachers that give no maps before their last activation (ViTs, and networks of which nothing is known) are read after it.",
        "mdistiller has the channels and sizes written out for one pair of networks; here they are those of the paired stages.",
        "mdistiller reads a largest number of middle channels from its settings and ignores it; here `width` is that number.",
        "The authors' weight differs from pair to pair by a factor of 13, and no rule is given.",
    ),
)
class ReviewKD(Method):
    """Each stage of the student, fused with all deeper ones and the embedding, on the teacher's before its last activation.

    Levels are the paired stages and the embedding as a map of one cell. The attention-based fusion has `width` middle
    channels, or the student's embedding's width where that is smaller.
    """

    warmup: int = Field(20, ge=1, description="epochs over which the weight grows to its value")
    width: int = Field(512, ge=1, description="the most channels that the fusion works with")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        ours, theirs = ([*(stage.channels for stage in shapes.stages), shapes.embedding] for shapes in (student, teacher))
        return Review(ours, theirs, min(self.width, student.embedding))

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        sides = ((student.stages, student.embedding), (teacher.preact_or_stages, teacher.embedding))
        maps, targets = ([*stages, embedding[:, :, None, None]] for stages, embedding in sides)
        sizes = [(target.shape[2], target.shape[3]) for target in targets]
        with full_precision(maps[0]):
            return reviewkd(cast(Review, module)([wide(m) for m in maps], sizes), targets)

    def ramp(self, clock: Progress) -> float:
        return min((clock.epoch + 1) / self.warmup, 1.0)
