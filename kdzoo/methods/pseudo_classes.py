"""A queue of the teacher's embeddings as classes: to which of them an image is how alike (SEED, Fang et al., 2021)."""

from __future__ import annotations

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
from kdzoo.methods._alike import LEAST_NORM, head
from kdzoo.methods._ops import full_precision, normalise, taught, wide


def pseudo_classes(student_scores: Tensor, teacher_scores: Tensor) -> Tensor:
    """The cross-entropy of softmax(student_scores) with softmax(teacher_scores), mean over the batch; cosines over tau, (B, M) each.

    A score of minus infinity, in both, is of what is no class.
    """
    t = taught(teacher_scores)
    shares, log_q = t.softmax(1), wide(student_scores).log_softmax(1)
    return -torch.where(t > -torch.inf, shares * log_q, 0.0).sum(1).mean()


class Queue(nn.Module):
    """The head to the teacher's width, and the teacher's last embeddings (Q, D) of norm 1, first in, first out."""

    queue: Tensor
    filled: Tensor
    place: Tensor

    def __init__(self, student: int, teacher: int, layers: int, length: int) -> None:
        super().__init__()
        self.head = head(student, teacher, layers)
        self.register_buffer("queue", torch.zeros(length, teacher))
        self.register_buffer("filled", torch.zeros(length, dtype=torch.bool))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))  # where the next embedding goes

    def scores(self, embedding: Tensor, batch: Tensor, tau: float) -> Tensor:
        """Cosines over tau of embeddings (B, D) of norm 1: with the teacher's of the batch, then with the queue's, (B, B + Q)."""
        keys = self.queue.clone().to(embedding.dtype)  # the queue moves on before the backward reads it
        with_queue = (embedding @ keys.T).masked_fill(~self.filled, -torch.inf)
        return torch.cat([embedding @ batch.T, with_queue], 1) / tau

    @torch.no_grad()
    def push(self, embedding: Tensor) -> None:
        """Put the teacher's embeddings (B, D) in the places of the oldest; of a batch longer than the queue its end."""
        length = len(self.queue)
        places = (self.place + torch.arange(min(len(embedding), length), device=embedding.device)) % length
        self.queue[places] = embedding[-length:].to(self.queue.dtype)
        self.filled.index_fill_(0, places, True)  # without a tensor of Python's True, which would have to be sent over
        self.place.copy_((self.place + len(places)) % length)


@register(
    "pseudo_classes",
    needs=Need.EMBEDDING,
    scale=1.0,
    source=Source(
        "SEED: Self-supervised Distillation for Visual Representation",
        2021,
        "https://arxiv.org/abs/2101.04731",
        equation="4 to 6",
        weights="CE + L: the paper has no labels and minimises L alone",
    ),
    formula="cross-entropy of softmax(cos(g(e_s), .) / {tau}) with softmax(cos(e_t, .) / {teacher_tau}) over the last {length} e_t",
    family="relations",
    disagreements=(
        "SEED's queue holds 65,536 embeddings of ImageNet; here it is as long as there are training samples at most, so that no entry is "
        "older than an epoch, and begins empty.",
        "SEED searches the teacher's temperature and the student's apart; lightly-train takes one for both.",
        "In SEED the teacher's embedding of the image itself is a class beside the queue's; here those of the whole batch are, as in "
        "lightly-train, so that there is something to learn while the queue is empty.",
    ),
)
class PseudoClasses(Method):
    """How alike an image is to past ones, as the teacher's embeddings say and the student's should; it reads no labels."""

    tau: float = Field(0.2, gt=0, description="temperature of the student's cosines")
    teacher_tau: float = Field(0.01, gt=0, description="temperature of the teacher's cosines")
    length: int = Field(16384, ge=1, description="how many embeddings the queue holds, or as many as there are samples")
    layers: int = Field(2, ge=1, le=2, description="layers of the head from the student's width to the teacher's")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Queue(student.embedding, teacher.embedding, self.layers, min(self.length, data.samples))

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        memory = cast(Queue, module)
        with full_precision(student.embedding):
            ours = normalise(memory.head(wide(student.embedding)), LEAST_NORM)
            theirs = normalise(taught(teacher.embedding), LEAST_NORM).to(ours.dtype)
            result = pseudo_classes(memory.scores(ours, theirs, self.tau), memory.scores(theirs, theirs, self.teacher_tau))
        if memory.training:
            memory.push(theirs)
        return result
