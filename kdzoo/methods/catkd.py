"""Class attention transfer: where each class is seen (Guo et al., 2023)."""

from __future__ import annotations

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
from kdzoo.methods._ops import full_precision, normalise, require_pooled_classifier, taught, wide


def catkd(student_maps: Tensor, teacher_maps: Tensor, *, resolution: int = 2) -> Tensor:
    """Mean of (n(A_s) - n(A_t))^2 over all of B x K x r x r, n dividing each class's pooled map by its L2 norm (the CAT loss).

    Class activation maps (B, K, H, W); sizes may differ, since both are average-pooled to r x r cells, or to as many as
    the smaller has.
    """
    size = smallest(student_maps, teacher_maps, resolution)
    s, t = (F.adaptive_avg_pool2d(maps, size).flatten(2) for maps in (wide(student_maps), taught(teacher_maps)))
    return (normalise(s) - normalise(t)).square().mean()


def smallest(student_maps: Tensor, teacher_maps: Tensor, resolution: int) -> tuple[int, int]:
    """The height and width that both maps can be pooled to, `resolution` at most."""
    height, width = (min(resolution, student_maps.shape[axis], teacher_maps.shape[axis]) for axis in (2, 3))
    return height, width


def class_maps(features: Tensor, classifier: nn.Module) -> Tensor:
    """Class activation maps (B, K, H, W): the classifier without its bias on each cell of features (B, C, H, W)."""
    weights = next(classifier.parameters(), None)
    maps = features if weights is None else features.to(weights.dtype)
    cells = maps.permute(0, 2, 3, 1).flatten(0, 2)
    scores = wide(classifier(cells)) - wide(classifier(torch.zeros_like(cells[:1])))
    return scores.reshape(len(features), *features.shape[2:], -1).permute(0, 3, 1, 2)


@register(
    "catkd",
    needs=Need.STAGES | Need.CLASSIFIER,
    scale=400.0,
    source=Source(
        "Class Attention Transfer Based Knowledge Distillation",
        2023,
        "https://openaccess.thecvf.com/content/CVPR2023/html/Guo_Class_Attention_Transfer_Based_Knowledge_Distillation_CVPR_2023_paper.html",
        equation="CAT loss",
        weights="CE + 400 L, the default of the authors' code for normalised maps, which none of its settings keeps (below); the authors "
        "ask to tune it, so that the loss is 1 to 50 after an epoch",
    ),
    formula="mean((n(pool(CAM_s)) - n(pool(CAM_t)))^2), {resolution} x {resolution} cells",
    zero_at_match=False,
    stages="last",
    family="features",
    disagreements=(
        "The authors' settings for CIFAR-100 have a weight of their own for each pair: 40 or 15 at 2 x 2 cells and 600 or 80 at 4 x 4 "
        "where they normalise the maps, as the paper does and this method; for six pairs they leave the maps as they are, with weights of "
        "0.7 (resnet56 to resnet20), 15 (resnet32x4 to resnet8x4), 1.5, 1.8, 4.5 and 12.",
        "The authors rebuild networks so that a 1x1 convolution without bias comes before the pooling; here the classifier, its bias left "
        "out, is applied to the cells of the last map, which gives the same maps and leaves the network as it is.",
    ),
    per_sample=True,
)
class CATKD(Method):
    """Where each class is seen: the class activation maps of both networks, pooled and normalised.

    Maps are pooled before the classifier, which is linear, and not after it. Refused where a network's embedding is not
    as wide as its last map.
    """

    resolution: int = Field(2, ge=1, description="cells a side to which maps are pooled")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        require_pooled_classifier(student=student, teacher=teacher)
        return nn.Module()

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        s, t = wide(student.stages[-1]), taught(teacher.stages[-1])
        size = smallest(s, t, self.resolution)
        with full_precision(s):
            with torch.no_grad():
                teacher_maps = class_maps(F.adaptive_avg_pool2d(t, size), teacher.classifier)
            return catkd(class_maps(F.adaptive_avg_pool2d(s, size), student.classifier), teacher_maps, resolution=self.resolution)
