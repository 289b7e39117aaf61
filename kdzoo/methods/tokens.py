"""The teacher's local features from the student's, without labels (the spatial loss of AM-RADIO, Ranzinger et al., 2024)."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Setting, Source
from kdzoo.contract.method import Method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._alike import Distance, head, resize_to, tokens_of, unlikeness
from kdzoo.methods._ops import full_precision, wide


def tokens(student_tokens: Tensor, teacher_tokens: Tensor, *, distance: Distance = "mixed") -> Tensor:
    """The mean distance of the student's tokens (B, N, D), at the teacher's width, from the teacher's, each from that of its place.

    distance: `mixed`, 0.9 (1 - cos) + 0.1 smooth L1, as published; `cosine`, 1 - cos; `squared`, the mean of squares over B x N x D.
    """
    return unlikeness(student_tokens, teacher_tokens, distance)


@register(
    "tokens",
    needs=Need.STAGES,
    stages="last",
    scale=1.0,
    source=Source(
        "AM-RADIO: Agglomerative Vision Foundation Model",
        2024,
        "https://arxiv.org/abs/2312.06709",
        equation="the spatial loss",
        weights="CE + L: the paper has no labels and minimises L alone, by its head of two layers",
    ),
    formula="{distance} distance of g(resized F_s) from F_t, cell by cell, g of {layers} layers",
    search=(
        Setting(),
        *(Setting({"distance": distance}, dose=dose) for distance, dose in (("mixed", 0.1), ("cosine", 0.1), ("squared", 0.1))),
        Setting(dose=0.3),
    ),
    family="features",
    disagreements=(
        "AM-RADIO and UNIC take one cosine for each token, as here; Theia takes one for all tokens of an image, which weighs them by "
        "their norms.",
        "Where the grids differ RADIO resizes the student's tokens to the teacher's grid before the head, by bilinear interpolation, as "
        "here; a larger grid is averaged as it shrinks.",
        "Of a ViT the cells are those of its last block, before its final norm; RADIO's are behind it.",
        "A token shorter than 1e-4 is divided by that, so that a token of zeros has a gradient of bounded size.",
    ),
    per_sample=True,
)
class Tokens(Method):
    """The cells of the teacher's last map from those of the student's, resized to its grid, through a head that is dropped afterwards."""

    distance: Distance = Field("mixed", description="how far two tokens are apart: cosine, squared, or 0.9 cosine + 0.1 smooth L1")
    layers: int = Field(2, ge=1, le=2, description="layers of the head from the student's channels to the teacher's")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return head(student.stages[-1].channels, teacher.stages[-1].channels, self.layers)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        target = teacher.stages[-1]
        features = resize_to(wide(student.stages[-1]), (target.shape[2], target.shape[3]))
        with full_precision(features):
            projected: Tensor = module(tokens_of(features))
        return tokens(projected, tokens_of(target), distance=self.distance)
