# lsh.py
"""Feature mimicking by hashes: on which side of random planes an embedding lies (Wang, Ge and Wu, 2021)."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

import kdzoo


def lsh(student_scores: Tensor, teacher_scores: Tensor) -> Tensor:
    """Mean over batch and planes of the binary cross-entropy between sigmoid(s) and the sign of t.

    Scores (B, N): where the embeddings lie with respect to N planes, negative on one side and positive on the other.
    """
    sides = (teacher_scores.detach() > 0).float()
    return F.binary_cross_entropy_with_logits(student_scores.float(), sides)


class Planes(nn.Module):
    """Random planes in the teacher's space, which stay as they are, and a layer that leads there from the student's."""

    def __init__(self, student: int, teacher: int, planes: int) -> None:
        super().__init__()
        self.embed = kdzoo.projector(student, teacher)
        self.register_buffer("normals", torch.randn(teacher, planes))


@kdzoo.register(
    "lsh",
    needs=kdzoo.Need.EMBEDDING,
    scale=1.0,
    source=kdzoo.Source(
        "Distilling Knowledge by Mimicking Features",
        2021,
        "https://arxiv.org/abs/2011.01424",
        equation="the hashing loss",
        weights="CE + L, a place to start from: the paper minimises it together with a squared distance",
    ),
    formula="mean BCE(sigmoid(w f_s), w f_t > 0) over {planes} planes w",
    search=tuple(kdzoo.Setting(weight=weight) for weight in (1.0, 0.3, 3.0, 6.0)),
    disagreements=("The paper adds the squared distance of the embeddings; here the planes, through the origin, are all there is.",),
)
class LSH(kdzoo.Method):
    """On which side of random planes the teacher's embedding lies."""

    planes: int = Field(512, ge=1, description="how many planes cut the space")

    def build(self, student: kdzoo.Shapes, teacher: kdzoo.Shapes, data: kdzoo.DataFacts) -> nn.Module:
        return Planes(student.embedding, teacher.embedding, self.planes)

    def loss(self, student: kdzoo.Outputs, teacher: kdzoo.Outputs, batch: kdzoo.Batch, module: Planes) -> Tensor:
        embedded = module.embed(student.embedding)
        return lsh(embedded @ module.normals, teacher.embedding.detach().float() @ module.normals)
