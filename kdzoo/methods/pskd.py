"""Progressive self-distillation: labels softened by what the student said an epoch ago (Kim et al., 2021)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.card import Coefficients, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import taught, wide


def pskd(student_logits: Tensor, past: Tensor, targets: Tensor, *, share: float) -> Tensor:
    """-sum_k q_k log softmax(s)_k with q = (1 - share) 1_y + share past, mean over the batch (the paper's L_KD).

    Logits (B, K), past probabilities (B, K), targets (B,). A cross-entropy, so not zero where the two agree; with a
    share of 0 it is that of the labels.
    """
    log_s, p = wide(student_logits).log_softmax(1), taught(past)
    return (1 - share) * F.nll_loss(log_s, targets) - share * (p * log_s).sum(1).mean()


class Past(nn.Module):
    """The student's last probabilities (N, K) of each training sample; the label as one-hot where it has seen none yet.

    Bytes held: 4 N K, 20 MB for 50,000 samples of 100 classes, 5 GB for ImageNet.
    """

    said: Tensor

    def __init__(self, targets: Tensor, classes: int) -> None:
        super().__init__()
        self.register_buffer("said", F.one_hot(targets, classes).float())

    def recall(self, index: Tensor) -> Tensor:
        """The probabilities (B, K) of the samples at `index`."""
        return self.said[index]

    @torch.no_grad()
    def remember(self, index: Tensor, logits: Tensor) -> None:
        """Keep the present probabilities, while training."""
        if self.training:
            self.said[index] = wide(logits).softmax(1).to(self.said.dtype)


@register(
    "pskd",
    needs=Needs(Need.LOGITS | Need.TARGETS, Need.NOTHING),
    published=Coefficients(task=0.0, term=1.0),
    source=Source(
        "Self-Knowledge Distillation with Progressive Refinement of Targets",
        2021,
        "https://arxiv.org/abs/2006.12000",
        equation="the softened target and the cross-entropy with it",
        weights="L alone, which holds the labels' cross-entropy, with a last share of 0.8, as in the authors' code",
    ),
    formula="CE((1 - a) * 1_y + a * p_past, softmax(s)), a = {last} * (epoch + 1) / epochs",
    family="self",
    refuses_mixing="the probabilities that it keeps of a sample were of another mix, with another partner",
    disagreements=(
        "The authors' code keeps the predictions in the memory of the host and moves a batch of them to and fro in every step; here they "
        "are where the student is.",
        "The share is counted in epochs from 1 in the authors' code, as here, so that it is not 0 in the first; that makes no "
        "difference, since what is remembered then are the labels.",
        "Its weights leave no cross-entropy beside it; under an alpha it is mixed with the labels' once more.",
    ),
)
class PSKD(Method):
    """The labels, more and more mixed with the student's own probabilities of the same sample in the epoch before; no teacher.

    The past prediction is that of the last time the sample was seen, as it was augmented then.
    """

    last: float = Field(0.8, ge=0, le=1, description="the share of the past prediction in the last epoch (alpha_T of the paper)")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Past(data.targets, student.classes)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        past = cast(Past, module)
        loss = pskd(student.logits, past.recall(batch.index), batch.targets, share=self.share(batch.clock))
        past.remember(batch.index, student.logits)
        return loss

    def share(self, clock: Progress) -> float:
        """The past prediction's share in an epoch, which rises linearly to `last`."""
        return self.last * (clock.epoch + 1) / clock.epochs
