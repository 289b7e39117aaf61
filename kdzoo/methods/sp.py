"""Similarity preserving: which images of a batch activate the last map alike (Tung and Mori, 2019)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import full_precision, normalise, taught, wide


def sp(student_stages: Sequence[Tensor], teacher_stages: Sequence[Tensor]) -> Tensor:
    """||n(G_s) - n(G_t)||^2 / B^2, G = Q Q^T (B, B), n dividing each row by its L2 norm, summed over stages (the loss L_SP).

    Q is a map (B, C, H, W) as rows of C x H x W numbers. G knows nothing of channels and sizes, so maps of different
    shapes are compared as they are. With rows of norm 1 the value falls as 1 / B when the batch grows.
    """
    total = wide(student_stages[0]).new_zeros(())
    for student, teacher in zip(student_stages, teacher_stages, strict=True):
        total = total + (similarities(wide(student)) - similarities(taught(teacher))).square().mean()
    return total


def similarities(features: Tensor) -> Tensor:
    """The products (B, B) of each sample with every other, each row of norm 1."""
    rows = features.flatten(1)
    with full_precision(rows):
        return normalise(rows @ rows.T)


@register(
    "sp",
    needs=Need.STAGES,
    scale=3000.0,
    source=Source(
        "Similarity-Preserving Knowledge Distillation",
        2019,
        "https://arxiv.org/abs/1907.09682",
        equation="the loss L_SP",
        weights="CE + 3000 L as in the paper for CIFAR-10 and in the CIFAR-100 tables of CRD (arXiv 1910.10699)",
    ),
    formula="||n(G_s) - n(G_t)||^2 / B^2 of the last map, G = Q Q^T, n dividing each row by its norm",
    zero_at_match=True,
    stages="last",
    maps="any",
    family="relations",
    disagreements=(
        "The paper, RepDistiller and mdistiller compare the last map alone, as here; Knowledge-Distillation-Zoo takes the mean over three "
        "stages, with the same weight.",
        "The division by B^2 is the paper's and makes the loss fall as 1 / B; the weight of 3000 belongs to batches of 64 to 128.",
        "Under data parallelism published code compares the samples of each device's share alone.",
    ),
)
class SP(Method):
    """Which samples of the batch activate the last map alike."""

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return sp(student.stages[-1:], teacher.stages[-1:])
