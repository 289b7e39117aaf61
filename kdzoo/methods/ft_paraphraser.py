"""The paraphraser: an autoencoder of the teacher's last map, trained before factor transfer (Kim, Park and Kwak, 2018)."""

from __future__ import annotations

from typing import cast

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import full_precision, mean_square, taught, wide


def ft_paraphraser(reconstructed: Tensor, teacher_map: Tensor) -> Tensor:
    """Mean of (P(t) - t)^2 over all of B x C x H x W (the squared norm of the paper taken as a mean). Maps (B, C, H, W)."""
    return mean_square(wide(reconstructed) - taught(teacher_map))


def factor_width(channels: int, rate: float) -> int:
    """The channels of a factor: `rate` times the teacher's, one at least."""
    return max(1, round(rate * channels))


class Paraphraser(nn.Module):
    """Three 3x3 convolutions from the teacher's map to its factor, and three transposed ones back; leaky ReLU of slope 0.1."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        down, up = ((channels, channels), (channels, width), (width, width)), ((width, width), (width, channels), (channels, channels))
        self.encode = nn.Sequential(*(part for a, b in down for part in (nn.Conv2d(a, b, 3, padding=1), nn.LeakyReLU(0.1))))
        self.decode = nn.Sequential(
            *(part for a, b in up[:-1] for part in (nn.ConvTranspose2d(a, b, 3, padding=1), nn.LeakyReLU(0.1))),
            nn.ConvTranspose2d(*up[-1], 3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.decode(self.encode(features)))


class Paraphrasing(nn.Module):
    """What is trained before factor transfer, under the name that factor transfer takes it over by."""

    def __init__(self, paraphraser: Paraphraser) -> None:
        super().__init__()
        self.paraphraser = paraphraser


@register(
    "ft_paraphraser",
    needs=Needs(Need.NOTHING, Need.STAGES),
    scale=1.0,
    source=Source(
        "Paraphrasing Complex Network: Network Compression via Factor Transfer",
        2018,
        "https://arxiv.org/abs/1802.04977",
        equation="the reconstruction loss",
        weights="the stage minimises the reconstruction alone, which has no weight",
    ),
    formula="mean((P(F_t) - F_t)^2), a factor of {rate} of the teacher's channels",
    stages="last",
    family="features",
    disagreements=(
        "Published paraphrasers differ in batch norm: Knowledge-Distillation-Zoo has it on CIFAR-10 and not on CIFAR-100, RepDistiller "
        "has none; here there is none, so that the frozen factor is the one that was trained.",
        "Published paraphrasers end with a leaky ReLU, which scales negative values down; here the last layer is linear.",
        "RepDistiller and Knowledge-Distillation-Zoo train it at a tenth of the student's rate or at 0.01; here at the recipe's rate.",
    ),
    per_sample=True,
)
class FTParaphraser(Method):
    """An autoencoder of the teacher's last map: the pretrain stage of `ft`. The student learns nothing from it."""

    rate: float = Field(0.5, gt=0, description="the factor's channels as a share of the teacher's")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        channels = teacher.stages[-1].channels
        return Paraphrasing(Paraphraser(channels, factor_width(channels, self.rate)))

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        last = taught(teacher.stages[-1])
        with full_precision(last):
            return ft_paraphraser(cast(Paraphrasing, module).paraphraser(last), last)
