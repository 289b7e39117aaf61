"""Inter-channel correlation: which channels go together within each image (Liu et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import connector, full_precision, normalise, same_size, taught, wide

LEAST_NORM = 1e-12


def ickd(student_stages: Sequence[Tensor], teacher_stages: Sequence[Tensor]) -> Tensor:
    """||n(G_s) - n(G_t)||^2 / (C B^2), G = F F^T (B, C, C), n dividing each row by its L2 norm, summed over stages.

    Maps (B, C, H, W), one to one with equal channels; of two sizes the larger is average-pooled. Divided by the batch
    twice, as in the code that the reference values are from.
    """
    total = wide(student_stages[0]).new_zeros(())
    for student, teacher in zip(student_stages, teacher_stages, strict=True):
        s, t = (maps.flatten(2) for maps in same_size(wide(student), taught(teacher)))
        total = total + apart(s, t).mean() / len(s)
    return total


def apart(student: Tensor, teacher: Tensor) -> Tensor:
    """||n(G_s)_c - n(G_t)_c||^2, (B, C), of each channel's row of correlations, from (B, C, N) both.

    The products of rows are s_c^T (S^T T) t_c, so N x N matrices do where there are fewer cells N than channels C.
    """
    with full_precision(student):
        if student.shape[2] >= student.shape[1]:
            return (normalise(correlations(student)) - normalise(correlations(teacher))).square().sum(2)
        ours, theirs = products(student, student), products(teacher, teacher)
        least = LEAST_NORM**2
        between = products(student, teacher) / ours.clamp(min=least).sqrt() / theirs.clamp(min=least).sqrt()
        return ours / ours.clamp(min=least) + theirs / theirs.clamp(min=least) - 2 * between


def correlations(features: Tensor) -> Tensor:
    """F F^T, (B, C, C), of (B, C, N)."""
    return features @ features.transpose(1, 2)


def products(ours: Tensor, theirs: Tensor) -> Tensor:
    """The products (B, C) of each row of F F^T with the same row of F' F'^T, of (B, C, N) both, over N x N matrices."""
    return ((ours @ (ours.transpose(1, 2) @ theirs)) * theirs).sum(2)


@register(
    "ickd",
    needs=Need.STAGES,
    scale=2.5,
    source=Source(
        "Exploring Inter-Channel Correlation for Diversity-Preserved Knowledge Distillation",
        2021,
        "https://arxiv.org/abs/2202.03680",
        equation="inter-channel correlation loss",
        weights="CE + 2.5 L without Hinton's loss as in the authors' code for CIFAR-100; 0.5 CE + 500 / B L and Hinton's loss for ImageNet",
    ),
    formula="mean_b ||n(G_s) - n(G_t)||^2 / C of the last map, G = F F^T",
    stages="last",
    family="features",
    disagreements=(
        "The authors' code for CIFAR-100 divides by the batch once, as this method does; their code for ImageNet and torchdistill divide "
        "twice, as the pure function does, so that the weight grows with the batch.",
        "The authors' code has a 1x1 convolution with batch norm before the student's map also where channels are equal, as here; "
        "torchdistill's settings leave that to the configuration.",
        "torchdistill's reproduction on ImageNet gave 68.34 instead of the published 72.19.",
    ),
)
class ICKD(Method):
    """Which channels of the last map go together, row by row of their correlations.

    The student's map goes through a 1x1 convolution with batch norm.
    """

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return connector(student.stages[-1].channels, teacher.stages[-1].channels)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        s, t = same_size(wide(student.stages[-1]), taught(teacher.stages[-1]))
        with full_precision(s):
            return ickd([module(s)], [t]) * len(s)
