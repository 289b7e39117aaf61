"""Probabilistic knowledge transfer: how likely each sample takes each other for its neighbour (Passalis and Tefas, 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.methods._ops import full_precision, taught, wide

EPS = 1e-7
"""added to norms and inside the logarithm, as in the code behind the published tables"""
BATCH = 64
"""of the published tables, whose weight it is divided by"""


def pkt(student_embedding: Tensor, teacher_embedding: Tensor) -> Tensor:
    """Mean over B x B of P_t log((P_t + eps) / (P_s + eps)), eps = 1e-7 (the divergence with the cosine kernel).

    Embeddings (B, D), widths may differ. P_ij = k_ij / sum_j k_ij, k_ij = (cos(x_i, x_j) + 1) / 2, the sample itself
    included. Rows sum to 1, so this is the mean divergence of a row over B: B times it does not depend on the batch size.
    """
    s, t = neighbours(wide(student_embedding)), neighbours(taught(teacher_embedding))
    return (t * ((t + EPS) / (s + EPS)).log()).mean()


def neighbours(embedding: Tensor) -> Tensor:
    """The probabilities (B, B) of each row's sample to have each column's as its neighbour."""
    unit: Tensor = embedding / (torch.linalg.vector_norm(embedding, dim=1, keepdim=True) + EPS)
    with full_precision(unit):
        kernel = ((unit @ unit.T + 1) / 2).clamp(min=0)  # rounding takes the cosine of opposite embeddings below -1
    return kernel / kernel.sum(1, keepdim=True)


@register(
    "pkt",
    needs=Need.EMBEDDING,
    scale=30000.0 / BATCH,
    source=Source(
        "Learning Deep Representations with Probabilistic Knowledge Transfer",
        2018,
        "https://arxiv.org/abs/1803.10837",
        equation="the Kullback-Leibler divergence with the cosine kernel",
        weights="CE + 30000 times the mean over B x B in the CIFAR-100 tables of CRD (arXiv 1910.10699); with their batches of 64 this is "
        "468.75 times the mean over rows",
    ),
    formula="mean_i sum_j P_t log(P_t / P_s), P_ij = k_ij / sum_j k_ij, k = (cos + 1) / 2",
    # at the published weight its gradient is a fiftieth of the cross-entropy's on networks that are not trained yet
    zero_at_match=True,
    family="relations",
    disagreements=(
        "The paper sums the divergences; RepDistiller, mdistiller and Knowledge-Distillation-Zoo take the mean over all B x B entries, so "
        "that the weight depends on the batch size; the method takes the mean over rows, the pure function keeps the published mean.",
        "RepDistiller and mdistiller have a weight of 30000 and an epsilon of 1e-7, Knowledge-Distillation-Zoo 10000 and 1e-6.",
        "Published code takes the logarithm of a negative number in float32 where rounding takes the cosine of opposite embeddings below "
        "-1, and overwrites NaN in the normalised embeddings in place; here the kernel is zero at least, and a norm of zero "
        "has a gradient of zero.",
    ),
)
class PKT(Method):
    """Each sample's distribution over its neighbours in the batch, by cosine similarity of the embeddings."""

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        return pkt(student.embedding, teacher.embedding) * len(student.embedding)
