# peer_hint.py
"""A loss that names all that a plugin's author could name: a group of parameters, a ramp, an auxiliary loss, a first stage."""

import torch.nn.functional as F
from kdzoo.method import FirstStage, Group, LossAndAuxiliary
from kdzoo.signals import Clock
from torch import nn

import kdzoo


@kdzoo.register("peer_hint", needs=kdzoo.Need.EMBEDDING | kdzoo.Need.TARGETS, first=FirstStage("peer_hint", share=1 / 8, then=("hinton",)))
class PeerHint(kdzoo.Method):
    """The squared distance of the embeddings, and a classifier on the projected one that learns the labels beside it."""

    def build(self, student: kdzoo.Shapes, teacher: kdzoo.Shapes, data: kdzoo.DataFacts) -> nn.Module:
        return nn.ModuleDict(
            {"project": kdzoo.projector(student.embedding, teacher.embedding), "classify": nn.Linear(teacher.embedding, data.classes)}
        )

    def loss(self, student: kdzoo.Outputs, teacher: kdzoo.Outputs, batch: kdzoo.Batch, module: nn.Module) -> LossAndAuxiliary:
        hidden = module["project"](student.embedding).float()
        scores = F.linear(hidden.detach(), module["classify"].weight.float(), module["classify"].bias.float())
        beside = F.cross_entropy(scores, batch.targets)  # trains the classifier, and adds nothing to the value of the sum
        return LossAndAuxiliary(F.mse_loss(hidden, teacher.embedding.detach().float()), beside - beside.detach())

    def groups(self, module: nn.Module) -> list[Group]:
        return [Group(list(module["project"].parameters()), weight_decay=0.0), Group(list(module["classify"].parameters()), lr=2.0)]

    def ramp(self, clock: Clock) -> float:
        return min(1.0, 0.5 + clock.progress)
