"""Eleven methods as Knowledge-Distillation-Zoo (AberHu, commit 65470c8) has them, for its table of CIFAR-10 and CIFAR-100.

They are restated from the formulas of its losses; kdzoo's own forms follow the papers or the tables of CRD. What remains different
stands at each method. Its networks have equal channels and sizes at every stage, so that nothing is adapted where it adapts nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
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
from kdzoo.methods._ops import connector, full_precision, taught, wide
from kdzoo.methods.ft_paraphraser import factor_width
from kdzoo.methods.lwm import scored
from kdzoo.methods.nst import nst
from kdzoo.methods.sp import sp
from kdzoo.methods.vid import STARTING_VARIANCE, regressor

EPSILON = 1e-6
"""added to norms, variances and probabilities"""


def mean_of_stages(losses: Sequence[Tensor]) -> Tensor:
    """The mean over stages, which kdzoo's own forms add up."""
    return torch.stack(list(losses)).mean()


def pairs(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The maps of every stage in full precision, the teacher's without a gradient."""
    return [(wide(s), taught(t)) for s, t in zip(student, teacher, strict=True)]


def unit(vectors: Tensor) -> Tensor:
    """Rows divided by their norm and a small number."""
    norm: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / (norm + EPSILON)


def at_aber(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean over stages of mean (A_s - A_t)^2, A = n(sum_c F^2) over pixels."""

    def attention(features: Tensor) -> Tensor:
        return unit(features.square().sum(1).flatten(1))

    return mean_of_stages([(attention(s) - attention(t)).square().mean() for s, t in pairs(student, teacher)])


def fitnet_aber(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean (F_s - F_t)^2 of the last maps, without a regressor."""
    (s, t) = pairs(student[-1:], teacher[-1:])[0]
    return (s - t).square().mean()


def nst_aber(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """The squared MMD of the last maps' channels."""
    return nst(student[-1:], teacher[-1:])


def sp_aber(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean over stages of ||n(G_s) - n(G_t)||^2 / B^2."""
    return mean_of_stages([sp([s], [t]) for s, t in zip(student, teacher, strict=True)])


def pkt_aber(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over B x B of P_t log((P_t + e) / (P_s + e)), P the rows of (cos + 1) / 2 divided by their sums."""

    def shares(embedding: Tensor) -> Tensor:
        rows = unit(embedding)
        kernel = (rows @ rows.T + 1) / 2
        return kernel / kernel.sum(1, keepdim=True)

    s, t = shares(wide(student)), shares(taught(teacher))
    return (t * ((t + EPSILON) / (s + EPSILON)).log()).mean()


def fsp_aber(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean over consecutive stages of mean (G_s - G_t)^2, G = F F'^T over pixels, the larger map average-pooled."""

    def flow(first: Tensor, second: Tensor) -> Tensor:
        height, width = second.shape[2:]
        return torch.einsum("bchw,bdhw->bcd", F.adaptive_avg_pool2d(first, (height, width)), second) / (height * width)

    both = pairs(student, teacher)
    flows = [(flow(s, next_s), flow(t, next_t)) for (s, t), (next_s, next_t) in itertools.pairwise(both)]
    return mean_of_stages([(s - t).square().mean() for s, t in flows])


def ft_aber(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean |n(f_s) - n(f_t)| of two factors (B, C, H, W)."""
    return (F.normalize(wide(student).flatten(1)) - F.normalize(taught(teacher).flatten(1))).abs().mean()


def ab_aber(student: Sequence[Tensor], teacher: Sequence[Tensor], *, margin: float = 2.0) -> Tensor:
    """Mean over stages of the mean of (s + m)^2 where s > -m and t <= 0, and (s - m)^2 where s <= m and t > 0."""

    def hinge(s: Tensor, t: Tensor) -> Tensor:
        off, on = (s > -margin) & (t <= 0), (s <= margin) & (t > 0)
        return ((s + margin).square() * off + (s - margin).square() * on).mean()

    return mean_of_stages([hinge(s, t) for s, t in pairs(student, teacher)])


def lwm_aber(student_gradients: Tensor, teacher_gradients: Tensor) -> Tensor:
    """Mean |n(Q_s) - n(Q_t)|, Q = relu(sum_c mean(g_c) g_c) of the gradients g (B, C, H, W) of the right class at a map.

    Its published form weighs the gradients by their own means, where Grad-CAM weighs the activations.
    """

    def cam(gradients: Tensor) -> Tensor:
        return (gradients.mean((2, 3), keepdim=True) * gradients).sum(1).relu()

    return distance_of_maps(cam(wide(student_gradients)), cam(taught(teacher_gradients)))


def distance_of_maps(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean |n(Q_s) - n(Q_t)| of maps Q (B, H, W)."""
    return (F.normalize(student.flatten(1)) - F.normalize(teacher.flatten(1))).abs().mean()


def vid_aber(means: Sequence[Tensor], teacher: Sequence[Tensor], variances: Sequence[Tensor]) -> Tensor:
    """Mean over stages of mean ((mu - t)^2 / v + log v) / 2, v (C,) a stage."""

    def likelihood(mean: Tensor, t: Tensor, variance: Tensor) -> Tensor:
        v = variance[:, None, None]
        return ((mean - t).square() / v + v.log()).mean() / 2

    return mean_of_stages([likelihood(mean, t, v) for (mean, t), v in zip(pairs(means, teacher), variances, strict=True)])


def ofd_aber(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean over stages of the mean of (s - t')^2, 0 where s <= t' <= 0; t' = max(t, m), m a channel's mean negative value in the batch."""

    def overhaul(s: Tensor, t: Tensor) -> Tensor:
        below = t < 0
        margin = (t * below).sum((0, 2, 3), keepdim=True) / (below.sum((0, 2, 3), keepdim=True) + EPSILON)
        target = torch.maximum(t, margin)
        return ((s - target).square() * ~((s <= target) & (target <= 0))).mean()

    return mean_of_stages([overhaul(s, t) for s, t in pairs(student, teacher)])


@register("at_aber", needs=Need.STAGES, scale=1000.0)
class AttentionTransfer(Method):
    """`at` with the mean over the stages and 1e-6 added to norms."""

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return at_aber(student.stages, teacher.stages)


@register("fitnet_aber", needs=Need.STAGES, scale=0.1)
class FitNet(Method):
    """`fitnet` at the last stage, without a regressor."""

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return fitnet_aber(student.stages, teacher.stages)


@register("nst_aber", needs=Need.STAGES, scale=10.0)
class NeuronSelectivity(Method):
    """`nst` at the last stage."""

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return nst_aber(student.stages, teacher.stages)


@register("sp_aber", needs=Need.STAGES, scale=3000.0)
class SimilarityPreserving(Method):
    """`sp` as the mean over all stages."""

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return sp_aber(student.stages, teacher.stages)


@register("pkt_aber", needs=Need.EMBEDDING, scale=10000.0)
class ProbabilisticTransfer(Method):
    """`pkt` as the mean over B x B, with 1e-6 beside probabilities."""

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return pkt_aber(student.embedding, teacher.embedding)


@register("fsp_aber", needs=Need.STAGES, scale=1.0, pretrain=PretrainStage("fsp_aber", share=50 / 200, followed_by=()))
class FlowOfSolution(Method):
    """`fsp` as the mean over pairs of stages, for 50 epochs before 200 of cross-entropy.

    Different here: the stem's map is not read, which leaves two flows of three, and the first stage has the recipe's rates, not 0.01,
    0.001 and 0.0001.
    """

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return fsp_aber(student.stages, teacher.stages)


@register("ab_aber", needs=Need.PREACT, scale=10.0, pretrain=PretrainStage("ab_aber", share=50 / 200, followed_by=()))
class ActivationBoundaries(Method):
    """`ab` with a margin of 2, the mean over elements and stages, for 50 epochs before 200 of cross-entropy.

    Different here: the first stage has the recipe's rates, not 0.01, 0.001 and 0.0001.
    """

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return ab_aber(student.preact, teacher.preact)


def convolutions(steps: Sequence[tuple[int, int]], *, norm: bool, transposed: bool = False) -> nn.Sequential:
    """3x3 convolutions from and to these channels, each with leaky ReLU of slope 0.1 and a bias or, where asked for, batch norm.

    Convolutions start with He's normal weights by their outputs and zero biases, transposed ones as torch has them.
    """
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    parts: list[nn.Module] = []
    for inputs, outputs in steps:
        layer = kind(inputs, outputs, 3, padding=1, bias=not norm)
        if not transposed:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        parts += [layer, *([nn.BatchNorm2d(outputs)] if norm else []), nn.LeakyReLU(0.1)]
    return nn.Sequential(*parts)


class Paraphraser(nn.Module):
    """An autoencoder of a map of so many channels, with a factor of `width`."""

    def __init__(self, channels: int, width: int, *, norm: bool) -> None:
        super().__init__()
        self.encode = convolutions([(channels, channels), (channels, width), (width, width)], norm=norm)
        self.decode = convolutions([(width, width), (width, channels), (channels, channels)], norm=norm, transposed=True)


class Factors(nn.Module):
    """The teacher's paraphraser and, in the second stage, the student's translator."""

    def __init__(self, teacher: int, width: int, student: int | None, *, norm: bool) -> None:
        super().__init__()
        self.paraphraser = Paraphraser(teacher, width, norm=norm)
        if student is not None:
            self.paraphraser.requires_grad_(False)
            self.translator = convolutions([(student, student), (student, width), (width, width)], norm=norm)


@register("ft_aber_paraphraser", needs=Needs(Need.NOTHING, Need.STAGES), scale=1.0, stages="last")
class FactorParaphraser(Method):
    """The first stage of `ft_aber`. Different here: the recipe's rates, not 0.01 throughout."""

    norm: bool = True
    """batch norm: on CIFAR-10, not on CIFAR-100"""

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        channels = teacher.stages[-1].channels
        return Factors(channels, factor_width(channels, 0.5), None, norm=self.norm)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        last, paraphraser = taught(teacher.stages[-1]), cast(Factors, module).paraphraser
        with full_precision(last):
            return cast(Tensor, (paraphraser.decode(paraphraser.encode(last)) - last).square().mean())


@register("ft_aber", needs=Need.STAGES, scale=200.0, stages="last", pretrain=PretrainStage("ft_aber_paraphraser", share=30 / 200))
class FactorTransfer(Method):
    """`ft` with batch norm in both networks on CIFAR-10 and in neither on CIFAR-100, after 30 epochs of its paraphraser."""

    norm: bool = True

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        channels = teacher.stages[-1].channels
        return Factors(channels, factor_width(channels, 0.5), student.stages[-1].channels, norm=self.norm)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        factors, last = cast(Factors, module), wide(student.stages[-1])
        factors.paraphraser.eval()
        with full_precision(last):
            with torch.no_grad():
                factor = factors.paraphraser.encode(taught(teacher.stages[-1]))
            return ft_aber(factors.translator(last), factor)


@register("lwm_aber", needs=Needs(Need.STAGES | Need.LOGITS | Need.NETWORK | Need.TARGETS, Need.NETWORK), scale=0.4)
class LearningWithoutMemorizing(Method):
    """`lwm` of the second stage, with gradients in the place of activations."""

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        with full_precision(student.logits):
            with torch.enable_grad():
                seen = teacher.network.outputs(wide(batch.inputs).requires_grad_(), Need.STAGES | Need.LOGITS)
            theirs = scored(seen.stages[1], seen.logits, batch.targets, differentiable=False)
            return lwm_aber(scored(student.stages[1], student.logits, batch.targets, differentiable=True), theirs)


class Gaussians(nn.Module):
    """A regressor and the numbers behind a variance for each stage."""

    def __init__(self, student: Shapes, teacher: Shapes) -> None:
        super().__init__()
        self.means = nn.ModuleList(regressor(s.channels, t.channels) for s, t in zip(student.stages, teacher.stages, strict=True))
        start = math.log(math.expm1(STARTING_VARIANCE - EPSILON))
        self.scales = nn.ParameterList(torch.full((t.channels,), start) for t in teacher.stages)


@register("vid_aber", needs=Need.STAGES, scale=1.0)
class Variational(Method):
    """`vid` as the mean over stages, with 1e-6 beside variances."""

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Gaussians(student, teacher)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        gaussians = cast(Gaussians, module)
        with full_precision(student.stages[0]):
            means = [mean(wide(s)) for mean, s in zip(gaussians.means, student.stages, strict=True)]
            return vid_aber(means, teacher.stages, [F.softplus(scale) + EPSILON for scale in gaussians.scales])


@register("ofd_aber", needs=Need.PREACT, scale=0.5)
class Overhaul(Method):
    """`ofd` with the margins of the batch alone, as the mean over elements and stages."""

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return nn.ModuleList(connector(s.channels, t.channels) for s, t in zip(student.stages, teacher.stages, strict=True))

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        with full_precision(student.preact[0]):
            connected = [connect(wide(s)) for connect, s in zip(cast(nn.ModuleList, module), student.preact, strict=True)]
            return ofd_aber(connected, teacher.preact)
