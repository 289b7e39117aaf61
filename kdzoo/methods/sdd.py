"""Scale-decoupled distillation: the logits of parts of the image, at several scales (Wei, Luo and Luo, 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import LOW_FIRST, Source, in_doses
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import full_precision, require_pooled_classifier, taught, wide
from kdzoo.methods.dkd import DKD, decoupled

GRIDS = (2, 4)
"""the rows and columns of cells of each scale; the whole image is the network's own logits"""


def sdd(
    student_cells: Tensor,
    teacher_cells: Tensor,
    targets: Tensor,
    *,
    complementary_weight: float,
    target_weight: float,
    nontarget_weight: float,
    temperature: float,
) -> Tensor:
    """DKD's loss of each cell's logits, mean over the cells and the batch (L_SDD as the authors' code divides it).

    Logits (B, N, K) of N cells, the first of them the whole image; targets (B,). A cell in which the teacher is right
    while it is wrong on the whole image, or the reverse, is complementary and gets the complementary_weight; the others
    have weight 1, and all count in the mean.
    """
    s, t = wide(student_cells), taught(teacher_cells)
    right = t.argmax(2) == targets[:, None]
    weights = 1 + (complementary_weight - 1) * (right != right[:, :1]).to(s.dtype)
    each = decoupled(
        s.flatten(0, 1),
        t.flatten(0, 1),
        targets.repeat_interleave(s.shape[1]),
        target_weight=target_weight,
        nontarget_weight=nontarget_weight,
        temperature=temperature,
    )
    return (weights * each.reshape(weights.shape)).mean()


def cell_logits(logits: Tensor, features: Tensor, classifier: nn.Module, grids: Sequence[int]) -> Tensor:
    """The logits (B, K) and, behind them, those of the cells of each grid over the map (B, C, H, W): (B, 1 + cells, K).

    The classifier is applied to the averages of cells, which for a linear one are the averages of its logits.
    """
    pooled = [F.adaptive_avg_pool2d(features, grid).flatten(2) for grid in grids]
    if not pooled:
        return logits[:, None]
    cells = torch.cat(pooled, 2).transpose(1, 2)
    weights = next(classifier.parameters(), None)
    scores = classifier(cells.flatten(0, 1) if weights is None else cells.flatten(0, 1).to(weights.dtype))
    return torch.cat([logits[:, None], wide(scores).reshape(*cells.shape[:2], -1)], 1)


@register(
    "sdd",
    needs=Needs(Need.LOGITS | Need.STAGES | Need.CLASSIFIER | Need.TARGETS, Need.LOGITS | Need.STAGES | Need.CLASSIFIER),
    source=Source(
        "Scale Decoupled Distillation",
        2024,
        "https://arxiv.org/abs/2403.13512",
        equation="L_SDD = D_con + beta D_com",
        weights="CE + L with DKD's weights of 1 and 8 at T = 4, complementary cells counted twice, as in the authors' code on DKD",
    ),
    formula="mean over cells of w * {temperature}^2 * ({target_weight} * TCKD + {nontarget_weight} * NCKD), "
    "w = {complementary_weight} where the teacher is right in the cell alone or on the whole alone, rising over {warmup} epochs",
    version="2",
    stages="last",
    search=in_doses(*LOW_FIRST),
    family="logits",
    disagreements=(
        "The paper's equation sums over the cells; the authors' code divides by the batch of its repeated targets, which is the number of "
        "cells times the batch, so that its published weight belongs to the mean, as here. A sum is 5 times as large with a 2 x 2 grid "
        "and 21 times with a 4 x 4 grid besides.",
        "The authors' settings weigh NCKD by 2 or 6 for ten of their eighteen pairs, and some have the 2 x 2 grid alone.",
        "The authors replace an infinite loss by 0 and go on; here the loss is finite.",
        "The authors rebuild networks so that the classifier comes before the pooling; here it is applied to the pooled cells, which gives "
        "the same logits and leaves the network as it is.",
        "Where a norm stands between the last stage and the classifier (ViTs, ConvNeXts), cells do not pass it; the whole image is always "
        "the network's own logits.",
    ),
    per_sample=True,
)
class SDD(DKD):
    """Decoupled knowledge distillation of the whole image and of the cells of 2 x 2 and 4 x 4 grids over the last map.

    A grid is used where both networks' last maps are at least as large: 21 cells, 5, or the whole image alone.
    """

    complementary_weight: float = Field(2.0, ge=0, description="factor on cells that disagree with the whole (beta of the paper)")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        require_pooled_classifier(student=student, teacher=teacher)
        return nn.Module()

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        s, t = wide(student.stages[-1]), taught(teacher.stages[-1])
        smallest = min(*s.shape[2:], *t.shape[2:])
        grids = [grid for grid in GRIDS if grid <= smallest]
        with full_precision(s):
            cells = cell_logits(wide(student.logits), s, student.classifier, grids)
            with torch.no_grad():
                targets = cell_logits(taught(teacher.logits), t, teacher.classifier, grids)
        return sdd(
            cells,
            targets,
            batch.targets,
            complementary_weight=self.complementary_weight,
            target_weight=self.target_weight,
            nontarget_weight=self.nontarget_weight,
            temperature=self.temperature,
        )
