"""The teacher's embedding, tokens, and tokens of images with hidden cells, without labels (Proteus, Zhang et al., 2025)."""

from __future__ import annotations

from typing import cast

import torch
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
from kdzoo.methods._alike import resize_to, tokens_of
from kdzoo.methods._ops import full_precision, method_rng, taught, wide

HIDDEN = 0.5
"""the share of the images of a batch that have hidden cells, and of their cells that are hidden"""


def proteus(
    student_token: Tensor,
    student_patches: Tensor,
    student_masked_patches: Tensor,
    teacher_token: Tensor,
    teacher_patches: Tensor,
    mask: Tensor,
    *,
    token_weight: float,
    feature_weight: float,
    patch_weight: float,
) -> Tensor:
    """The weighted sum of three means of squares: of the token, of the token with all patches, of the patches that were hidden.

    Tokens (B, D) and patches (B, N, D), the student's at the teacher's width. student_masked_patches (B', N, D): of the first B'
    images with some of their patches hidden; mask (B', N): which, True for hidden. The last mean is 0 where none is hidden.
    """
    token = (wide(student_token) - taught(teacher_token)).square().mean()
    patches = (wide(student_patches) - taught(teacher_patches)).square().mean()
    count = teacher_patches.shape[1]
    feature = (token + count * patches) / (count + 1)
    hidden = (wide(student_masked_patches) - taught(teacher_patches[: len(mask)])).square().mean(2)
    patch = (hidden * mask).sum() / mask.sum().clamp(min=1)
    return token_weight * token + feature_weight * feature + patch_weight * patch


class Head(nn.Module):
    """A norm and a linear layer from the student's width to the teacher's."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(student)
        self.linear = nn.Linear(student, teacher)

    def forward(self, vectors: Tensor) -> Tensor:
        result: Tensor = self.linear(self.norm(vectors))
        return result


class Heads(nn.Module):
    """The heads of the token, of the patches, and of the patches of images with hidden cells."""

    def __init__(self, student: Shapes, teacher: Shapes) -> None:
        super().__init__()
        self.token = Head(student.embedding, teacher.embedding)
        self.feature, self.patch = (Head(student.stages[-1].channels, teacher.stages[-1].channels) for _ in range(2))


def draw_mask(images: int, cells: int, random: torch.Generator) -> Tensor:
    """Which cells of images are hidden (images, cells): as many of each, drawn without replacement."""
    order = torch.rand(images, cells, generator=random, device=random.device).argsort(1)
    return order < int(HIDDEN * cells)


def hide(images: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """The first images of (B, C, H, W) in which the cells of a grid that the mask (B', N) names have the mean colour of all images."""
    pixels = wide(images)
    where = F.interpolate(mask.view(-1, 1, *grid).to(pixels.dtype), pixels.shape[2:], mode="nearest") > 0
    return torch.where(where, pixels.mean((0, 2, 3), keepdim=True), pixels[: len(mask)])


@register(
    "proteus",
    needs=Needs(Need.EMBEDDING | Need.STAGES | Need.NETWORK, Need.EMBEDDING | Need.STAGES),
    stages="last",
    scale=1.0,
    source=Source(
        "Accessing Vision Foundation Models via ImageNet-1K",
        2025,
        "https://arxiv.org/abs/2407.10366",
        equation="the token, feature and patch objectives",
        weights="CE + L: the paper has no labels and minimises L alone, its three parts with weight 1 each, as in the authors' code",
    ),
    formula="{token_weight} (g(e_s) - e_t)^2 + {feature_weight} ([g(e_s); h(F_s)] - [e_t; F_t])^2 + {patch_weight} (k(F_s') - F_t)^2 "
    "on hidden cells, each a mean",
    family="features",
    disagreements=(
        "The authors put a learnt mask token in the place of hidden patches; networks here have none, so that the cells of the image "
        "have the batch's mean colour instead, which a ViT's patch embedding turns into one constant token.",
        "The authors run the student on the whole batch again, of which half have hidden patches; here on that half alone, since no "
        "other cell is compared.",
        "The second pass is in training mode as the first is, so that running statistics of batch norms are of whole images and of those "
        "with hidden cells in turn; the authors' students are ViTs, which have none.",
        "The token is the embedding as the network pools it, the class token of a ViT that has one; its cells are those of the last "
        "block before the final norm, behind which the authors' are.",
        "The authors ask for equal grids; here the student's map is resized to the teacher's. A grid of one cell has nothing to hide.",
        "With a CLIP teacher the authors have the token term alone: `--grid proteus.feature_weight=0 --grid proteus.patch_weight=0`.",
    ),
)
class Proteus(Method):
    """The teacher's embedding and tokens, also of cells that the student does not see, each through a head that is dropped afterwards."""

    token_weight: float = Field(1.0, ge=0, description="factor on the term of the embedding")
    feature_weight: float = Field(1.0, ge=0, description="factor on the term of the embedding with all cells")
    patch_weight: float = Field(1.0, ge=0, description="factor on the term of hidden cells; 0 leaves out the second pass of the student")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return Heads(student, teacher)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        heads, target = cast(Heads, module), teacher.stages[-1]
        grid = (target.shape[2], target.shape[3])
        cells = grid[0] * grid[1]
        hides = self.patch_weight > 0 and int(HIDDEN * cells) > 0
        mask = draw_mask(int(HIDDEN * len(target)) if hides else 0, cells, batch.generator)
        maps = [wide(student.stages[-1])]
        if len(mask):
            with method_rng(batch):
                maps.append(wide(student.network.outputs(hide(batch.inputs, mask, grid), Need.STAGES).stages[-1]))
        with full_precision(target):
            token = heads.token(wide(student.embedding))
            patches, *hidden = (
                head(tokens_of(resize_to(one, grid))) for head, one in zip((heads.feature, heads.patch), maps, strict=False)
            )
        return proteus(
            token,
            patches,
            hidden[0] if hidden else patches[:0],
            teacher.embedding,
            tokens_of(target),
            mask,
            token_weight=self.token_weight,
            feature_weight=self.feature_weight,
            patch_weight=self.patch_weight,
        )
