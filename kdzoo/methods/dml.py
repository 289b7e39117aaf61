"""Deep mutual learning: a peer that learns beside the student, each from the other (Zhang et al., 2018)."""

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
from kdzoo.methods._ops import divergence, new_peers, peer_logits, taught, wide


def dml(student_logits: Tensor, peers: Sequence[Tensor]) -> Tensor:
    """Mean over the peers of KL(softmax(peer) || softmax(s)), summed over the classes, mean over the batch (the mimicry loss).

    Logits (B, K) of the student and of each peer; no gradient reaches the peers. There is no temperature.
    """
    log_s = wide(student_logits).log_softmax(1)
    return torch.stack([divergence(log_s, taught(peer).log_softmax(1)).mean() for peer in peers]).mean()


@register(
    "dml",
    needs=Needs(Need.LOGITS | Need.NETWORK | Need.TARGETS, Need.NOTHING),
    scale=1.0,
    source=Source(
        "Deep Mutual Learning",
        2018,
        "https://arxiv.org/abs/1706.00384",
        equation="the mimicry loss, in its form for several networks",
        weights="CE + L for each network, as in the paper",
    ),
    formula="mean over {peers} peer(s) of KL(softmax(peer) || softmax(s))",
    zero_at_match=True,
    family="online",
    disagreements=(
        "The paper updates one network after the other and computes the first one's predictions anew in between; here, as in "
        "Knowledge-Distillation-Zoo, all learn from the same forward, in one step.",
        "Knowledge-Distillation-Zoo calls the better of the two networks on the test images the result; here it is the student, whichever "
        "is better.",
    ),
)
class DML(Method):
    """Peers of the student's architecture, trained with it; each network learns from what the others say of the same images.

    No teacher. A peer's own loss, cross-entropy and the mean divergence from the other networks, is added as it is,
    whatever weighs the student's; label smoothing is the student's alone. A peer costs a forward and a backward.
    """

    peers: int = Field(1, ge=1, description="networks that learn beside the student")

    def build(self, student: Shapes, teacher: Shapes, data: DataFacts) -> nn.Module:
        return new_peers(student, self.peers)

    def loss(self, student: Outputs, teacher: Outputs, batch: Batch, module: nn.Module) -> LossWithAux:
        peers = peer_logits(module, batch)
        auxiliary = torch.stack(
            [
                F.cross_entropy(peer, batch.targets) + dml(peer, [student.logits, *peers[:place], *peers[place + 1 :]])
                for place, peer in enumerate(peers)
            ]
        ).sum()
        return LossWithAux(dml(student.logits, peers), auxiliary)
