"""Collaborative learning: networks that learn together from the strictest of what they say (Guo et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Source
from kdzoo.contract.method import LossWithAux, Method
from kdzoo.contract.needs import Need, Needs
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.register import register
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.methods._ops import new_peers, peer_logits, taught
from kdzoo.methods.hinton import hinton


def kdcl(logits: Tensor, networks: Sequence[Tensor], targets: Tensor, *, temperature: float) -> Tensor:
    """T^2 KL(softmax(e / T) || softmax(z / T)), e the networks' MinLogit ensemble; summed over classes, mean over the batch (L_KD).

    Logits (B, K) of the network that learns and of all networks, itself included; targets (B,). No gradient reaches
    the ensemble.
    """
    return hinton(logits, min_logit(networks, targets), temperature=temperature)


def min_logit(networks: Sequence[Tensor], targets: Tensor) -> Tensor:
    """The least of the networks' z_k - z_y for each class k, (B, K): zero at the target (KDCL-MinLogit)."""
    above = [z - z.gather(1, targets[:, None]) for z in map(taught, networks)]
    return torch.stack(above).amin(0)


@register(
    "kdcl",
    needs=Needs(Need.LOGITS | Need.NETWORK | Need.TARGETS, Need.NOTHING),
    scale=1.0,
    source=Source(
        "Online Knowledge Distillation via Collaborative Learning",
        2020,
        "https://openaccess.thecvf.com/content_CVPR_2020/html/Guo_Online_Knowledge_Distillation_via_Collaborative_Learning_CVPR_2020_paper.html",
        equation="KDCL-MinLogit and L_KD",
        weights="CE + L for each network; T = 2 is a setting of kdzoo, for want of code by the authors",
    ),
    formula="{temperature}^2 * KL(softmax(e / {temperature}) || softmax(s / {temperature})), e_k = least z_k - z_y of student and "
    "{peers} peer(s)",
    family="online",
    disagreements=(
        "In the paper each network sees a distortion of its own of each image; here all see the same, as the student does.",
        "The paper has three ensembles more: the one with the least cross-entropy, and weighted means by batch or by held-out error.",
        "The paper trains networks of different sizes together; here the peers have the student's architecture.",
    ),
)
class KDCL(Method):
    """Peers of the student's architecture, trained with it; all learn from an ensemble of what they say, the student included.

    No teacher. The ensemble takes for each class the smallest gap to the target's logit that any network gives. A peer's
    own loss, cross-entropy and the same divergence, is added as it is, whatever weighs the student's; label smoothing is
    the student's alone.
    """

    temperature: float = Field(2.0, gt=0, description="softens both softmaxes")
    peers: int = Field(1, ge=1, description="networks that learn beside the student")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return new_peers(student, self.peers)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> LossWithAux:
        peers = peer_logits(module, batch)
        networks, targets, temperature = [student.logits, *peers], batch.targets, self.temperature
        own = [F.cross_entropy(peer, targets) + kdcl(peer, networks, targets, temperature=temperature) for peer in peers]
        return LossWithAux(kdcl(student.logits, networks, targets, temperature=temperature), torch.stack(own).sum())
