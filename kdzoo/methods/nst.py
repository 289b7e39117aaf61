"""Neuron selectivity transfer: the distributions of what each channel selects (Huang and Wang, 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import full_precision, normalise, same_size, taught, wide


def nst(student_stages: Sequence[Tensor], teacher_stages: Sequence[Tensor]) -> Tensor:
    """The squared maximum mean discrepancy of the channels of each image, mean over the batch, summed over stages .

    A channel is its map of H x W, divided by its L2 norm; the kernel is polynomial, k(a, b) = (a . b)^2, and means are
    over all pairs of channels, the teacher's own included. Maps (B, C, H, W), one to one; channels may differ; of two
    sizes the larger is average-pooled.
    """
    total = wide(student_stages[0]).new_zeros(())
    for student, teacher in zip(student_stages, teacher_stages, strict=True):
        s, t = same_size(wide(student), taught(teacher))
        total = total + discrepancy(normalise(s.flatten(2)), normalise(t.flatten(2))).mean()
    return total


def discrepancy(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared discrepancy (B,) of two sets of vectors, (B, C, N) and (B, C', N), under the kernel (a . b)^2.

    The kernel's feature of a vector a is a a^T, so the discrepancy is also the squared distance of the means of a a^T.
    Of both forms, the C x C' products and the N x N means, the one with fewer multiplications is computed.
    """
    s, t, cells = student.shape[1], teacher.shape[1], student.shape[2]
    with full_precision(student):
        if cells * (s + t) < s * s + s * t + t * t:
            return (second_moment(student) - second_moment(teacher)).square().sum((1, 2))
        return mean_kernel(student, student) + mean_kernel(teacher, teacher) - 2 * mean_kernel(student, teacher)


def second_moment(vectors: Tensor) -> Tensor:
    """The mean of a a^T, (B, N, N), over the vectors (B, C, N) of each sample."""
    return vectors.transpose(1, 2) @ vectors / vectors.shape[1]


def mean_kernel(ours: Tensor, theirs: Tensor) -> Tensor:
    """The mean of (a . b)^2, (B,), over all pairs of (B, C, N) and (B, C', N)."""
    return torch.square(ours @ theirs.transpose(1, 2)).mean((1, 2))


@register(
    "nst",
    needs=Need.STAGES,
    scale=50.0,
    source=Source(
        "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer",
        2017,
        "https://arxiv.org/abs/1707.01219",
        equation="squared MMD with the polynomial kernel, d = 2 and c = 0",
        weights="CE + 50 L over all stages as in the CIFAR-100 tables of CRD (arXiv 1910.10699)",
    ),
    formula="sum over stages of mean (s.s')^2 + mean (t.t')^2 - 2 mean (s.t)^2 over pairs of channels, each of norm 1",
    zero_at_match=True,
    family="features",
    disagreements=(
        "The paper also offers linear and Gaussian kernels; published tables have the polynomial one.",
        "RepDistiller and mdistiller sum over all stages with a weight of 50; Knowledge-Distillation-Zoo takes the last stage with 10.",
        "RepDistiller, mdistiller and Knowledge-Distillation-Zoo form all C x C' x H W products, a gibibyte a term and stage for "
        "resnet32x4 at a batch of 64; here they are matrix products with the same result.",
    ),
    per_sample=True,
)
class NST(Method):
    """What the teacher's channels select, as a set of unit vectors under a polynomial kernel."""

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return nst(student.stages, teacher.stages)
