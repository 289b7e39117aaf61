"""Correlation congruence: the kernel matrix of the embeddings of a batch (Peng et al., 2019)."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import full_precision, normalise, taught, wide


def cc(student_embedding: Tensor, teacher_embedding: Tensor, *, gamma: float, order: int) -> Tensor:
    """Mean over B x B of (K_s - K_t)^2, K_ij = sum_{p=0..order} e^(-2 gamma) (2 gamma)^p / p! (x_i . x_j)^p (the loss L_CC).

    Embeddings (B, D), widths may differ; x are the rows divided by their L2 norm. K is the Taylor expansion of the
    Gaussian kernel e^(-gamma ||x_i - x_j||^2) of unit vectors; its constant term cancels and is left out.
    """
    kernels = [expanded(cosines(wide(e)), gamma, order) for e in (student_embedding, taught(teacher_embedding))]
    return (kernels[0] - kernels[1]).square().mean()


def cosines(embedding: Tensor) -> Tensor:
    """The products (B, B) of the embeddings of norm 1."""
    unit = normalise(embedding)
    with full_precision(unit):
        return unit @ unit.T


def expanded(products: Tensor, gamma: float, order: int) -> Tensor:
    """e^(-2 gamma) (y + y^2 / 2! + ... + y^order / order!), y = 2 gamma products, by Horner's rule."""
    powers = 2 * gamma * products
    inner = torch.ones_like(products)
    for degree in range(order, 1, -1):
        inner = 1 + inner * powers / degree
    return math.exp(-2 * gamma) * powers * inner


@register(
    "cc",
    needs=Need.EMBEDDING,
    scale=100.0,
    source=Source(
        "Correlation Congruence for Knowledge Distillation",
        2019,
        "https://arxiv.org/abs/1904.01802",
        equation="the loss L_CC with the Gaussian kernel",
        weights="CE + 100 L at gamma = 0.4 and order 2 as in Knowledge-Distillation-Zoo; the paper adds Hinton's loss",
    ),
    formula="mean (K_s - K_t)^2, K = sum over p up to {order} of e^(-2 gamma) (2 gamma)^p / p! cos^p, gamma = {gamma}",
    # at the published weight its gradient is a fortieth of the cross-entropy's on networks that are not trained yet
    zero_at_match=True,
    family="relations",
    disagreements=(
        "RepDistiller, and with it the CIFAR-100 tables of CRD, has another loss under this name: products of the absolute differences of "
        "neighbouring samples, which depend on the order of the batch, behind linear layers of 128 that are trained for the teacher too "
        "and can end at zero; those numbers are not the paper's method.",
        "Knowledge-Distillation-Zoo, as here, leaves out the paper's loss of single instances, which is hinton, and its samplers, which "
        "fill a batch with images of few classes.",
        "torchdistill has linear layers of 128 before the kernel and the norm of the difference over B^2, which is not squared.",
    ),
)
class CC(Method):
    """The embeddings of a batch through a Gaussian kernel, each pair of samples against the teacher's."""

    gamma: float = Field(0.4, gt=0, description="width of the Gaussian kernel e^(-gamma d^2)")
    order: int = Field(2, ge=1, description="degree of its Taylor expansion (P of the paper)")

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return cc(student.embedding, teacher.embedding, gamma=self.gamma, order=self.order)
