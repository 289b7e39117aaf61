"""Contrastive representation distillation with a queue (Tian, Krishnan and Isola, 2020; the queue of He et al., 2020)."""

from __future__ import annotations

import math
from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import full_precision, wide
from kdzoo.methods.crd import CommonSpace, accepted, rejected, several_classes


def crd_queue(scores: Tensor, is_negative: Tensor, *, samples: int) -> Tensor:
    """- log h(positive) - sum over the anchor's negatives of log(1 - h(negative)), mean over the batch (CRD's equations 10 and 17).

    scores (B, M): <anchor, key> / tau of B anchors and M >= B keys, of which the first B are the positives, in the anchors'
    order. is_negative (B, M): which keys are negatives of which anchor. h(x) = x / (x + K / samples) of x = exp(score) / Z; K
    is how many negatives an anchor has; an anchor without negatives contributes 0. Z is `samples` times the mean of exp(score) over all
    positives and negatives of the batch, so that a shift of all scores changes nothing.
    """
    s = wide(scores)
    in_sum = is_negative | torch.eye(*s.shape, dtype=torch.bool, device=s.device)
    log_z = s.masked_fill(~in_sum, -math.inf).flatten().logsumexp(0) + (samples / in_sum.sum().to(s.dtype)).log()
    negatives = is_negative.sum(1).to(s.dtype)
    log_prior = (negatives.clamp(min=1) / samples).log()
    positive_term = accepted(s.diagonal() - log_z, log_prior) * (negatives > 0)
    negative_term = torch.where(is_negative, rejected(s - log_z, log_prior[:, None]), 0.0).sum(1)
    return -(positive_term + negative_term).mean()


class Queues(CommonSpace):
    """The common space with the last Q embeddings (Q, d) of each network and their labels, first in, first out.

    Bytes held: 8 Q d in float32, 17 MB at Q = 16,384 and d = 128, whatever the size of the data set. A step keeps the
    scores' blocks of 4 B (B + Q) bytes for the backward, 46 MB in all at B = 64.
    """

    queue_s: Tensor
    queue_t: Tensor
    labels: Tensor
    head: Tensor

    def __init__(self, student: int, teacher: int, width: int, length: int, samples: int) -> None:
        super().__init__(student, teacher, width)
        self.samples = samples
        for name in ("queue_s", "queue_t"):
            self.register_buffer(name, torch.zeros(length, width))
        self.register_buffer("labels", torch.full((length,), -1))  # -1: not filled yet
        self.register_buffer("head", torch.zeros((), dtype=torch.int64))  # where the next embedding goes

    def negatives(self, targets: Tensor) -> Tensor:
        """Which keys, the batch's own (B) and then the queue's (Q), are negatives of which anchor: those of other classes, (B, B + Q)."""
        keys = torch.cat([targets, self.labels])
        return (keys >= 0) & (keys != targets[:, None])

    @torch.no_grad()
    def push(self, embedded_s: Tensor, embedded_t: Tensor, targets: Tensor) -> None:
        """Put a batch in the places of the oldest; of a batch longer than the queue its end."""
        length = len(self.labels)
        places = (self.head + torch.arange(min(len(targets), length), device=targets.device)) % length
        for queue, new in ((self.queue_s, embedded_s), (self.queue_t, embedded_t), (self.labels, targets)):
            queue[places] = new[-length:]
        self.head.copy_((self.head + len(places)) % length)


@register(
    "crd_queue",
    needs=Need.EMBEDDING | Need.TARGETS,
    scale=0.8,
    source=Source(
        "Contrastive Representation Distillation",
        2020,
        "https://arxiv.org/abs/1910.10699",
        equation="10, 17 and 19, with the queue of Momentum Contrast (arXiv 1911.05722)",
        weights="CE + 0.8 L, tau = 0.07 and 16,384 entries as published with memory banks; with a queue nothing is published",
    ),
    formula="NCE(e_s, e_t and the last {length}) + NCE(e_t, e_s and the last {length}), tau = {tau}",
    family="relations",
    disagreements=(
        "The authors' code has a memory bank with an entry for every training sample (crd); the queue holds no more than the last "
        "embeddings, and its memory does not grow with the data set.",
        "Positives, and negatives of the batch, are what the networks say now and have gradients, as in the paper's equations; in the "
        "authors' code they are the banks' entries, constants of an epoch ago.",
        "The authors' code fixes Z on the first batch; with a queue, whose entries begin almost parallel, the loss then drifts and the "
        "embeddings collapse, so that here Z is each batch's own.",
        "Momentum Contrast fills its queue by a slowly moving copy of the network; here entries are the embeddings as they were learnt, "
        "which age with the student.",
        "Momentum Contrast takes every entry for a negative, and softmax over all of them for the loss; here entries of the sample's own "
        "class are none, as in CRD's code, and the loss is CRD's.",
    ),
)
class CRDQueue(Method):
    """Embeddings of both networks, contrasted with the other's: with those of other classes in the batch and in a queue of past ones.

    The queue is as long as there are training samples at most, so that no entry is older than an epoch; it begins empty,
    and what is not filled yet is no negative.
    """

    tau: float = Field(0.07, gt=0, description="temperature of the contrastive scores")
    length: int = Field(16384, ge=1, description="how many embeddings the queue holds, or as many as there are samples")
    width: int = Field(128, ge=1, description="width of the common space, in which both networks' embeddings are compared")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        several_classes(data)
        return Queues(student.embedding, teacher.embedding, self.width, min(self.length, data.samples), data.samples)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        memory = cast(Queues, module)
        mask, samples = memory.negatives(batch.targets), memory.samples
        with full_precision(student.embedding):
            embedded_s, embedded_t = memory(student.embedding, teacher.embedding)
            to_teacher = embedded_s @ torch.cat([embedded_t, memory.queue_t]).T / self.tau
            to_student = embedded_t @ torch.cat([embedded_s, memory.queue_s]).T / self.tau
        if memory.training:
            memory.push(embedded_s, embedded_t, batch.targets)
        return crd_queue(to_teacher, mask, samples=samples) + crd_queue(to_student, mask, samples=samples)
