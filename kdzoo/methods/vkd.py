"""Distillation through an orthogonal projection to a normalised teacher (Miles, Elezi and Deng, 2024)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import Method, ParamGroup
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import full_precision, taught, wide


def vkd(projected: Tensor, teacher_embedding: Tensor) -> Tensor:
    """Smooth L1 between the projected student's embedding and the layer-normalised teacher's, mean over B x D.

    Both (B, D). The teacher's loses its mean and is divided by the root of its variance + 1e-5, over D, without scale and
    shift; the student's is taken as the projection gives it. Squares below a distance of 1 are halved.
    """
    t = taught(teacher_embedding)
    return F.smooth_l1_loss(wide(projected), F.layer_norm(t, t.shape[1:]))


class OrthogonalProjection(nn.Module):
    """A linear map between spaces whose matrix has orthonormal columns, or rows where it leads to the narrower space.

    The matrix is the orthogonal factor of the QR decomposition of a free one, with positive diagonal in the other factor:
    every such matrix, at the cost of O(wide narrow^2) a step.
    """

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.widens = teacher >= student
        self.free = nn.Parameter(torch.empty(max(student, teacher), min(student, teacher)))
        nn.init.orthogonal_(self.free)

    def matrix(self) -> Tensor:
        """(D_s, D_t)"""
        orthogonal, upper = torch.linalg.qr(self.free)
        columns: Tensor = orthogonal * torch.where(upper.detach().diagonal() < 0, -1.0, 1.0)
        return columns.T if self.widens else columns

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D_s) -> (B, D_t), in the same lengths and angles where the teacher is as wide or wider."""
        return embedding @ self.matrix()


@register(
    "vkd",
    needs=Need.EMBEDDING,
    scale=1.0,
    source=Source(
        "VkD: Improving Knowledge Distillation using Orthogonal Projections",
        2024,
        "https://arxiv.org/abs/2403.06213",
        equation="orthogonal projection and standardisation of the teacher",
        weights="CE + L beside KL(T = 1) of the distillation token with factor 1, the defaults of the authors' code for DeiT on ImageNet",
    ),
    formula="mean smoothL1(P h_s, layernorm(h_t)), P with orthonormal rows or columns",
    family="relations",
    disagreements=(
        "The published recipe adds KL at T = 1 on the head of a distillation token, for DeiT alone; here it is `1*ce+1*hinton+1*vkd` with "
        "hinton.temperature=1, or deit_soft in hinton's place for students with such a token.",
        "The authors pool the student's patch tokens and the teacher's last map; here both embeddings are what the classifiers read, a "
        "ViT's often being its class token.",
        "The published code leaves orthogonality to PyTorch's parametrisation (exponential map where widths are equal, Householder "
        "reflections elsewhere), which takes half a minute of a CPU for one step from 512 to 2048; here a QR decomposition spans the same "
        "matrices. It says that the paper's runs had other code for it, which is not published.",
        "In the published code weight decay reaches the projection: of the Householder form, whose signs are then cast to zero, nothing "
        "is left after one step with the PyTorch of today; here the projection has no weight decay.",
        "The normalisation is the task's own in the paper: for generating images it whitens the teacher (from memory), which is not here.",
    ),
    per_sample=True,
)
class VkD(Method):
    """The teacher's layer-normalised embedding, from a projection of the student's that keeps lengths and angles.

    The projection's matrix has orthonormal columns where the teacher is as wide or wider, orthonormal rows where the student
    is. It is learnt as a rotation, without weight decay.
    """

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return OrthogonalProjection(student.embedding, teacher.embedding)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> Tensor:
        embedding = wide(student.embedding)
        with full_precision(embedding):
            return vkd(module(embedding), teacher.embedding)

    def groups(self, module: nn.Module) -> list[ParamGroup]:
        # The length of the free matrix counts for nothing: decay would only make its rotation faster and faster.
        return [ParamGroup(list(module.parameters()), weight_decay=0.0)]
