"""Three methods and a first stage as RepDistiller (commit b84f547) has them, for CRD's table on CIFAR-100.

kdzoo's own forms follow the papers. These are restated from the formulas of its losses.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import PretrainStage
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.methods._ops import full_precision, same_size, taught, wide
from kdzoo.methods.ft import Translation
from kdzoo.methods.ft_paraphraser import Paraphraser, Paraphrasing, factor_width, ft_paraphraser

WIDTH = 128
HINT = 1
"""the second stage"""


def cc_rep(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over neighbouring samples i, i + 1 of sum_d |e_s - e_t|_i,d |e_s - e_t|_i+1,d; embeddings (B, d)."""
    apart = (student - teacher).abs()
    return (apart[:-1] * apart[1:]).sum(1).mean()


def ft_rep(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean |n(a_s) - n(a_t)|, a = mean_c f^2 over the pixels of a factor (B, C, H, W)."""

    def attention(factor: Tensor) -> Tensor:
        return F.normalize(factor.square().mean(1).flatten(1))

    return (attention(wide(student)) - attention(taught(teacher))).abs().mean()


@register("cc_rep", needs=Need.EMBEDDING, scale=0.02)
class NeighboursApart(Method):
    """What RepDistiller calls correlation congruence, behind a layer of 128 for each network; both are trained."""

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return nn.ModuleList([nn.Linear(student.embedding, WIDTH), nn.Linear(teacher.embedding, WIDTH)])

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        ours, theirs = cast(nn.ModuleList, module)
        with full_precision(student.embedding):
            return cc_rep(ours(wide(student.embedding)), theirs(taught(teacher.embedding)))


def rep_paraphraser(channels: int, rate: float) -> Paraphraser:
    """kdzoo's paraphraser with a leaky ReLU of slope 0.1 behind the last layer too."""
    paraphraser = Paraphraser(channels, factor_width(channels, rate))
    paraphraser.decode.append(nn.LeakyReLU(0.1))
    return paraphraser


@register("ft_rep_paraphraser", needs=Needs(Need.NOTHING, Need.STAGES), scale=1.0, stages="last")
class LeakyParaphraser(Method):
    """The first stage of `ft_rep`. Different here: the recipe's rates."""

    rate: float = 0.5

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Paraphrasing(rep_paraphraser(teacher.stages[-1].channels, self.rate))

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        last = taught(teacher.stages[-1])
        with full_precision(last):
            return ft_paraphraser(cast(Paraphrasing, module).paraphraser(last), last)


@register("ft_rep", needs=Need.STAGES, scale=200.0, stages="last", pretrain=PretrainStage("ft_rep_paraphraser", share=30 / 240))
class FactorAttention(Method):
    """`ft` between the attention maps of factors, which lose the channels before they are normalised."""

    rate: float = 0.5

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        channels = teacher.stages[-1].channels
        return Translation(student.stages[-1].channels, channels, factor_width(channels, self.rate))  # only the encoder is read

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        translation = cast(Translation, module)
        s, t = wide(student.stages[-1]), taught(teacher.stages[-1])
        with full_precision(s):
            with torch.no_grad():
                factor = translation.paraphraser.encode(t)
            return ft_rep(*same_size(translation.translator(s), factor))


def hint_regressor(channels: tuple[int, int], sides: tuple[int, int]) -> nn.Sequential:
    """From the student's channels and side to the teacher's: a convolution by the ratio of the sides, batch norm and ReLU."""
    (ours, theirs), (s, t) = channels, sides
    if s == 2 * t:
        change: nn.Module = nn.Conv2d(ours, theirs, 3, stride=2, padding=1)
    elif 2 * s == t:
        change = nn.ConvTranspose2d(ours, theirs, 4, stride=2, padding=1)
    elif s >= t:
        change = nn.Conv2d(ours, theirs, 1 + s - t)
    else:
        raise InputError(f"expected a hint of at most twice the student's side, got {t} beside {s}")
    return nn.Sequential(change, nn.BatchNorm2d(theirs), nn.ReLU())


@register("fitnet_rep", needs=Need.STAGES, scale=100.0)
class Hint(Method):
    """`fitnet` at the second stage, whose regressor changes the side too and ends with ReLU."""

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        ours, theirs = student.stages[HINT], teacher.stages[HINT]
        return hint_regressor((ours.channels, theirs.channels), (ours.height, theirs.height))

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        guided, hint = wide(student.stages[HINT]), taught(teacher.stages[HINT])
        with full_precision(guided):
            return cast(Tensor, (module(guided) - hint).square().mean())
