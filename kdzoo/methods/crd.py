"""Contrastive representation distillation with memory banks (Tian, Krishnan and Isola, 2020)."""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.methods._ops import full_precision, normalise, taught, wide


def crd(positive: Tensor, negatives: Tensor, *, samples: int | None = None) -> Tensor:
    """- log h(positive) - sum over the K negatives of log(1 - h(negative)), mean over the batch (equations 10 and 17).

    positive (B,) and negatives (B, K) are logarithms of the critic's scores, <anchor, memory> / tau - log Z;
    h(x) = x / (x + K / samples), the negatives' prior being uniform over the `samples` of the data set. The sum over K
    is as published; the 1e-7 that published code adds to denominators is not needed in logarithms.

    It does not take embeddings: the layers and memory banks that turn them into scores belong to the method, which
    `kdzoo.Distiller` brings into a training loop. Raises InputError, which says so, for anything but scores.
    """
    if samples is None or positive.ndim != 1 or negatives.ndim != 2 or len(positive) != len(negatives):
        shapes = f"{tuple(positive.shape)} and {tuple(negatives.shape)}{', no samples=' if samples is None else ''}"
        raise InputError(
            f"crd: expected scores, positive (B,) and negatives (B, K), and samples=N, the size of the data set; got {shapes}. "
            'Embeddings need layers and memory banks: kdzoo.Distiller(student, teacher, "crd", data=...) has them, and so has '
            'kdzoo.Distiller.from_outputs("crd", student=..., teacher=..., data=...) for outputs'
        )
    log_prior = math.log(negatives.shape[1] / samples)
    hit = accepted(wide(positive), log_prior)
    missed = rejected(wide(negatives), log_prior).sum(1)
    return -(hit + missed).mean()


def accepted(scores: Tensor, log_prior: Tensor | float) -> Tensor:
    """log h(x) = log(x / (x + prior)) of each score x, from the logarithms of both."""
    return F.logsigmoid(scores - log_prior)


def rejected(scores: Tensor, log_prior: Tensor | float) -> Tensor:
    """log(1 - h(x)) = log(prior / (x + prior)) of each score x, from the logarithms of both."""
    return F.logsigmoid(log_prior - scores)


def picked_scores(anchors: Tensor, bank: Tensor, picked: Tensor) -> Tensor:
    """<anchor, entry> of each anchor (B, d) with its picked entries (B, M) of the bank (N, d): (B, M); by the cheaper of two ways.

    Scores with all N entries are one matrix product, and take two blocks of 4 B N bytes with their gradient and a copy of
    the bank; the picked entries alone take one of 4 B M d. Both cost about what they move, so that the smaller one is taken.
    """
    (batch, picks), (samples, width) = picked.shape, bank.shape
    product_is_smaller = samples * (2 * batch + width) <= batch * picks * width
    return (scores_by_product if product_is_smaller else scores_by_entries)(anchors, bank, picked)


def scores_by_product(anchors: Tensor, bank: Tensor, picked: Tensor) -> Tensor:
    """The picked of all scores; of a copy, since a bank moves on between its scores and their backward."""
    return (anchors @ bank.clone().T).gather(1, picked)


def scores_by_entries(anchors: Tensor, bank: Tensor, picked: Tensor) -> Tensor:
    """The scores of the picked entries."""
    return torch.bmm(bank[picked], anchors[:, :, None]).squeeze(2)


class CommonSpace(nn.Module):
    """A linear layer for each network, from its embedding to a space of width d in which both are compared."""

    def __init__(self, student: int, teacher: int, width: int) -> None:
        super().__init__()
        self.embed_s = nn.Linear(student, width)
        self.embed_t = nn.Linear(teacher, width)

    def forward(self, student_embedding: Tensor, teacher_embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Both networks' embeddings (B, D) in the common space, (B, d) each, of length 1."""
        return normalise(self.embed_s(wide(student_embedding))), normalise(self.embed_t(taught(teacher_embedding)))


def several_classes(data: DataFacts) -> None:
    """Refuse data whose samples are all of one class, for which no sample of another is a negative."""
    if int((torch.bincount(data.targets, minlength=data.classes) > 0).sum()) < 2:
        raise InputError("needs training samples of two classes at least: its negatives come from other classes")


class Contrast(CommonSpace):
    """The common space with two memory banks (N, d), one of each network, and the logarithms of the critics' constants Z.

    Bytes held: 8 N d for the banks in float32, 51 MB at N = 50,000 and d = 128. What a step takes besides is `picked_scores`'
    and a few blocks of 8 B K bytes: 100 MB at B = 64 and K = 16,384.
    """

    bank_s: Tensor
    bank_t: Tensor
    log_z_s: Tensor
    log_z_t: Tensor
    by_class: Tensor
    starts: Tensor
    counts: Tensor
    labels: Tensor

    def __init__(self, student: int, teacher: int, width: int, targets: Tensor, classes: int) -> None:
        super().__init__(student, teacher, width)
        bound = math.sqrt(3 / width)
        for name in ("bank_s", "bank_t"):
            self.register_buffer(name, torch.empty(len(targets), width).uniform_(-bound, bound))
        for name in ("log_z_s", "log_z_t"):
            self.register_buffer(name, torch.full((), math.inf))  # infinite until the first batch sets it
        # Samples sorted by class: those of other classes than y are all positions outside [starts[y], starts[y] + counts[y]).
        counts = torch.bincount(targets, minlength=classes)
        self.register_buffer("by_class", targets.argsort(stable=True), persistent=False)
        self.register_buffer("starts", counts.cumsum(0) - counts, persistent=False)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("labels", targets.clone(), persistent=False)
        self.available = len(targets) - int(counts.max())

    def negatives(self, index: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """`count` samples of other classes for each sample, (B, count), drawn where the generator lives.

        The samples of other classes, sorted by class, are cut into `count` equal strips, and one is drawn from each:
        every one of them is equally likely, and where `count` is all of them each comes exactly once.
        """
        labels = self.labels[index]
        start, own = self.starts[labels][:, None], self.counts[labels][:, None]
        free = len(self.by_class) - own
        share = torch.rand(len(index), count, generator=generator, device=generator.device, dtype=torch.float64)
        strip = torch.arange(count, device=index.device)
        position = ((strip + share.to(index.device)) * (free.double() / count)).long().clamp(max=free - 1)
        return self.by_class[torch.where(position >= start, position + own, position)]


@register(
    "crd",
    needs=Need.EMBEDDING | Need.TARGETS,
    scale=0.8,
    source=Source(
        "Contrastive Representation Distillation",
        2020,
        "https://arxiv.org/abs/1910.10699",
        equation="10, 17 and 19",
        weights="CE + 0.8 L with tau = 0.07 and 16,384 negatives as in the authors' code",
    ),
    formula="NCE(e_s, M_t) + NCE(e_t, M_s), tau = {tau}, K = {negatives}",
    family="relations",
    disagreements=(
        "The authors' code and mdistiller take tau = 0.07, Knowledge-Distillation-Zoo takes 0.1; which the paper had on CIFAR-100 could "
        "not be verified.",
        "Knowledge-Distillation-Zoo weighs the loss by 0.8 on CIFAR-100 and by 0.2 on CIFAR-10.",
        "The authors' code draws negatives in the loader's workers and ships their indices with the batch, without replacement on CIFAR "
        "and with on ImageNet; here they are drawn on the device.",
        "The authors' code can also take another sample of the class for the positive; here it is the sample itself.",
        "The authors' code adds 1e-7 to denominators, which logarithms do not need.",
        "Knowledge-Distillation-Zoo keeps Z outside what is saved, so that a resumed run has another one; in mdistiller, on several "
        "devices, what replicas write to the banks is lost.",
        "Published tables add no other loss; rows named CRD + KD add Hinton's, which is crd+hinton.",
    ),
)
class CRD(Method):
    """Embeddings of both networks, contrasted with memory banks of what they said of all other classes' samples.

    Negatives are drawn on the device, for every sample anew, one from each of K equal strips of the other classes'
    samples: the published code draws K of them without replacement on CIFAR and with on ImageNet. Z is fixed on the
    first batch to N times the mean score, and banks follow with the given momentum, as in the published code.
    """

    tau: float = Field(0.07, gt=0, description="temperature of the contrastive scores")
    negatives: int = Field(16384, ge=1, description="how many, or as many as there are samples of other classes")
    width: int = Field(128, ge=1, description="of the embeddings and the banks")
    momentum: float = Field(0.5, ge=0, lt=1, description="what a bank keeps of its entry")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        several_classes(data)
        return Contrast(student.embedding, teacher.embedding, self.width, data.targets, data.classes)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        memory, index = cast(Contrast, module), batch.index
        negatives = memory.negatives(index, min(self.negatives, memory.available), batch.generator)
        rows = torch.cat([index[:, None], negatives], dim=1)
        with full_precision(student.embedding):
            embedded_s, embedded_t = memory(student.embedding, teacher.embedding)
            total = self._anchored(embedded_s, memory.bank_t, memory.log_z_s, rows, memory.training)
            total = total + self._anchored(embedded_t, memory.bank_s, memory.log_z_t, rows, memory.training)
        if memory.training:
            self._remember(memory.bank_s, index, embedded_s)
            self._remember(memory.bank_t, index, embedded_t)
        return total

    def _anchored(self, anchors: Tensor, bank: Tensor, log_z: Tensor, picked: Tensor, training: bool) -> Tensor:
        """The NCE of anchors (B, d) against the picked entries (B, 1 + K) of the other network's bank."""
        scores = picked_scores(anchors, bank, picked) / self.tau
        with torch.no_grad():
            first = scores.flatten().logsumexp(0) + math.log(len(bank) / scores.numel())
            fixed = torch.where(log_z.isinf(), first, log_z)
            if training:
                log_z.copy_(fixed)
        scores = scores - fixed
        return crd(scores[:, 0], scores[:, 1:], samples=len(bank))

    @torch.no_grad()
    def _remember(self, bank: Tensor, index: Tensor, embedded: Tensor) -> None:
        bank[index] = normalise(self.momentum * bank[index] + (1 - self.momentum) * embedded)
