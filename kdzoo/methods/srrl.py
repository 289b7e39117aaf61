"""Softmax regression representation: the student's embedding through the teacher's classifier (Yang et al., 2021)."""

from __future__ import annotations

from copy import deepcopy
from typing import cast

from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import Rectifier, classifier_of, connector, full_precision, taught, wide


def srrl(student_embedding: Tensor, teacher_embedding: Tensor, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean of (h_s - h_t)^2 over B x D plus mean of (z_s - z_t)^2 over B x K (L_FM + L_SR).

    The student's embedding (B, D) as a connector gives it, at the teacher's width, and its logits (B, K) as the
    teacher's classifier gives them for that embedding.
    """
    feature = (wide(student_embedding) - taught(teacher_embedding)).square().mean()
    return feature + (wide(student_logits) - taught(teacher_logits)).square().mean()


class Regression(nn.Module):
    """The connector to the teacher's embedding, and the teacher's frozen classifier."""

    def __init__(self, student: int, teacher: int, classifier: nn.Module) -> None:
        super().__init__()
        self.connector = connector(student, teacher)
        self.rectifier = Rectifier()
        self.classifier = deepcopy(classifier).requires_grad_(False)

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """The student's embedding (B, D_s) at the teacher's width, and the teacher's classifier's logits for it."""
        connected = self.rectifier(self.connector(embedding[:, :, None, None])).flatten(1)
        return connected, self.classifier(connected)


@register(
    "srrl",
    needs=Needs(Need.EMBEDDING, Need.EMBEDDING | Need.LOGITS),
    scale=1.0,
    source=Source(
        "Knowledge Distillation via Softmax Regression Representation Learning",
        2021,
        "https://openreview.net/forum?id=ZzwDy_wiWv",
        equation="L_FM and L_SR",
        weights="CE + L, both parts alike, as in the authors' code",
    ),
    formula="mean((r(h_s) - h_t)^2) + mean((W_t r(h_s) - z_t)^2)",
    family="features",
    disagreements=(
        "The authors' connector works on the last map and is pooled afterwards; SimKD's and CTKD's works on the embedding, as here, which "
        "needs no map and serves networks that do not pool one.",
        "Published connectors end with a ReLU, which cannot reach embeddings below zero; here it cuts at the smallest value that the "
        "teacher gave, which is the ReLU for teachers that end in one.",
        "CTKD's code adds 0.9 of Hinton's loss to 0.1 of cross-entropy, SimKD's adds it with factor 1; the paper has none.",
    ),
)
class SRRL(Method):
    """The student's embedding at the teacher's width, compared with the teacher's and through the teacher's classifier."""

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Regression(student.embedding, teacher.embedding, classifier_of(teacher, use="reads"))

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        regression = cast(Regression, module)
        regression.rectifier.observe(taught(teacher.embedding))
        with full_precision(student.embedding):
            embedding, logits = regression(wide(student.embedding))
        return srrl(embedding, teacher.embedding, logits, teacher.logits)
