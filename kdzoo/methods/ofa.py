"""One for all: every stage of the student speaks in logits, whatever the two architectures are (Hao et al., 2023)."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import LOW_FIRST, Setting, Source, in_doses
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.methods._ops import full_precision, separable_downsampling, taught, wide


def ofa(student_logits: Tensor, teacher_logits: Tensor, targets: Tensor, *, enhancement: float) -> Tensor:
    """-sum_k [(p_k + 1_{k=y})^e - 1_{k=y}] log softmax(s)_k, p the teacher's probabilities; mean over the batch (L_OFA).

    Logits (B, K), targets (B,). With e = 1 it is the cross-entropy with the teacher; a larger e raises the target's
    share and lowers those of the others. A cross-entropy, so not zero where the two agree.
    """
    log_s, p = wide(student_logits).log_softmax(1), taught(teacher_logits).softmax(1)
    label = torch.zeros_like(p).scatter(1, targets[:, None], 1.0)
    return -(((p + label).pow(enhancement) - label) * log_s).sum(1).mean()


class Speaker(nn.Module):
    """The head of one stage: separable convolutions that halve the map as often as given, pooling, and a linear layer.

    Channels double with each halving and are `width` at the end; without a halving a 1x1 convolution leads there.
    """

    def __init__(self, channels: int, width: int, classes: int, halvings: int) -> None:
        super().__init__()
        self.body = (
            nn.Sequential(separable_downsampling(channels, width, halvings), nn.ReLU()) if halvings else nn.Conv2d(channels, width, 1)
        )
        self.classifier = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(self.body(features).mean((2, 3))))


@register(
    "ofa",
    needs=Needs(Need.STAGES | Need.LOGITS | Need.TARGETS, Need.LOGITS),
    scale=1.0,
    source=Source(
        "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation",
        2023,
        "https://arxiv.org/abs/2310.19444",
        equation="L_OFA, at each stage and at the logits",
        weights="CE + L with all parts alike, as in the authors' code; the exponent of 1.5 is that of its example, DeiT-T to ResNet18, its "
        "default being 1.0",
    ),
    formula="l(s) + sum over stages of l(head(F)), l(z) = -sum_k [(p_k + 1_y)^{enhancement} - 1_y] log softmax(z)_k",
    search=(
        *in_doses(*LOW_FIRST, enhancement=1.5),
        *(Setting({"enhancement": enhancement}) for enhancement in (1.0, 1.25)),
    ),
    stages="own",
    family="features",
    disagreements=(
        "The authors' code takes the logarithm of a softmax, which is infinite for large gaps between logits; here it is a log-softmax.",
        "The authors' heads of ViTs and mixers are patch merging and transformer blocks on the tokens of several depths; here tokens are a "
        "map, whose head is a convolution and a linear layer, and such a network has the one stage that its tokens make.",
        "The authors divide every network into four stages; here the stages are its resolutions.",
        "The exponent was tuned to each pair of networks between 1 and 1.6; the authors' code has 1, which enhances nothing, and gives "
        "1.5 in its example.",
    ),
)
class OFA(Method):
    """What the student's logits and a head at each of its stages say, against the teacher's probabilities, the label enhanced.

    Nothing is read of the teacher but its logits, so any two architectures go together. Heads end at the wider of the
    two networks' embeddings and are not shipped.
    """

    enhancement: float = Field(1.5, ge=1, description="exponent of the teacher's probabilities plus the label (gamma of the paper)")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        if not student.stages:
            raise InputError("puts a head on each stage of the student, but that network gives none")
        deepest = len(student.stages) - 1
        width = max(student.embedding, teacher.embedding, student.stages[-1].channels)
        return nn.ModuleList(Speaker(stage.channels, width, student.classes, deepest - depth) for depth, stage in enumerate(student.stages))

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        with full_precision(student.logits):
            spoken = [head(wide(features)) for head, features in zip(cast(nn.ModuleList, module), student.stages, strict=True)]
        losses = [ofa(z, teacher.logits, batch.targets, enhancement=self.enhancement) for z in (student.logits, *spoken)]
        return torch.stack(losses).sum()
