"""Be your own teacher: classifiers at the shallow stages learn from the deepest one (Zhang et al., 2019)."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.methods._ops import Rectifier, full_precision, separable_downsampling, taught, wide
from kdzoo.methods.hinton import hinton


def byot(
    shallow_logits: Tensor,
    shallow_embedding: Tensor,
    deep_logits: Tensor,
    deep_embedding: Tensor,
    targets: Tensor,
    *,
    soft_weight: float,
    hint_weight: float,
    temperature: float,
) -> Tensor:
    """(1 - a) CE + a T^2 KL(softmax(d / T) || softmax(z / T)) + l ||h - h_d||^2 of one shallow classifier (the terms of equation 3).

    a is `soft_weight`, l is `hint_weight`. Logits z and d (B, K), embeddings h and h_d (B, D), targets (B,). The squared
    distance is summed over D; all are means over the batch. No gradient reaches the deep side.
    """
    hard = F.cross_entropy(wide(shallow_logits), targets)
    soft = hinton(shallow_logits, deep_logits, temperature=temperature)
    hint = (wide(shallow_embedding) - taught(deep_embedding)).square().sum(1).mean()
    return (1 - soft_weight) * hard + soft_weight * soft + hint_weight * hint


class Exit(nn.Module):
    """The classifier of a shallow stage: separable convolutions down to the deepest stage's size, pooling, a linear layer."""

    def __init__(self, channels: int, width: int, classes: int, halvings: int) -> None:
        super().__init__()
        self.body = separable_downsampling(channels, width, halvings)
        self.rectifier = Rectifier()
        self.classifier = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The logits (B, K) and the embedding (B, D) of a stage."""
        embedding = self.rectifier(self.body(features)).mean((2, 3))
        return self.classifier(embedding), embedding


@register(
    "byot",
    needs=Needs(Need.STAGES | Need.EMBEDDING | Need.LOGITS | Need.TARGETS, Need.NOTHING),
    scale=1.0,
    source=Source(
        "Be Your Own Teacher: Improve the Performance of Convolutional Neural Networks via Self Distillation",
        2019,
        "https://arxiv.org/abs/1905.08094",
        equation="3",
        weights="CE + L with 0.7 CE + 0.3 KD at T = 3 + 0.03 hint for each shallow classifier: the numbers of mmrazor for ResNet18 on "
        "CIFAR-100, where 0.03 belongs to another form of the hint (below); the paper gives none",
    ),
    formula="sum over shallow stages of (1 - {soft_weight}) * CE + {soft_weight} * {temperature}^2 * KL(d || z) + {hint_weight} * "
    "||h - h_d||^2",
    stages="own",
    family="self",
    detaches="the deepest side, which teaches the shallow ones",
    disagreements=(
        "The published weight of 0.03 on the hint belongs to a root of a sum, sqrt(S), S the squared distances summed over the whole batch "
        "(mmrazor, and copies of the authors' earlier code); the paper's equation, as here, has the squared norm, whose mean over the "
        "batch of B is S / B. At the same weight the value here is sqrt(S) / B times that of the programs and the gradient 2 sqrt(S) / B "
        "times, which is 1 where S = B^2 / 4.",
        "The authors' later code leaves the hint out, weighs the shallow maps by an attention of their own, and has no T^2; mmrazor has "
        "T^2, as here.",
        "mmrazor gives the deepest of the shallow classifiers no hint; the paper gives each one, as here.",
        "The paper has bottlenecks in front of the shallow classifiers; the authors' later code has separable convolutions, as here.",
        "Published results are those of the deepest classifier and of an ensemble of all; here the shallow ones are not shipped.",
    ),
)
class BYOT(Method):
    """A classifier at each stage but the deepest, which learns the labels and what the network itself says; no teacher.

    Their losses train the stages too. A network with a single stage (a ViT) is refused. The rectifier that ends a head
    cuts at the smallest value that the network's own embedding had, 0 at most.
    """

    soft_weight: float = Field(0.3, ge=0, le=1, description="share of the network's own probabilities (alpha of the paper)")
    hint_weight: float = Field(0.03, ge=0, description="factor on the distance of embeddings (lambda of the paper)")
    temperature: float = Field(3.0, gt=0, description="softens both softmaxes")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        if len(student.stages) < 2:
            names = ", ".join(map(str, student.stages)) or "none"
            raise InputError(f"puts a classifier on each stage but the deepest and needs two of them; the student's stages are {names}")
        deepest = len(student.stages) - 1
        return nn.ModuleList(
            Exit(stage.channels, student.embedding, student.classes, deepest - depth) for depth, stage in enumerate(student.stages[:-1])
        )

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        total = wide(student.logits).new_zeros(())
        with full_precision(student.logits):
            for head, features in zip(cast(nn.ModuleList, module), student.stages[:-1], strict=True):
                cast(Exit, head).rectifier.observe(taught(student.embedding))
                logits, embedding = head(wide(features))
                total = total + byot(
                    logits,
                    embedding,
                    student.logits,
                    student.embedding,
                    batch.targets,
                    soft_weight=self.soft_weight,
                    hint_weight=self.hint_weight,
                    temperature=self.temperature,
                )
        return total
