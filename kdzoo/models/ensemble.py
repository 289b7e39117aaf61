"""Networks that teach together, as one network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.models.network import Network


class Ensemble(Network):
    """Networks that teach together: the logits are the logarithm of their mean probabilities; all else is the first's."""

    def __init__(self, networks: Sequence[Network]) -> None:
        nn.Module.__init__(self)
        self.model = nn.ModuleList(networks)
        first = networks[0]
        self.channels, self.image_size, self.taps, self.layout = first.channels, first.image_size, first.taps, first.layout
        self.gives = "scores"  # the members take the logarithms of theirs themselves
        self.headless = first.headless
        self.assumed_norm = False
        self.fresh_head = False
        self.compiled_batch_size = None
        self.frozen = True

    def forward(self, images: Tensor, need: Need) -> Outputs:
        first, *others = cast(Sequence[Network], self.model)
        outputs: Outputs = first(images, need | Need.LOGITS)
        members = [outputs.logits, *(network.logits(images) for network in others)]
        mean = torch.stack([logits.float().log_softmax(1) for logits in members]).logsumexp(0) - math.log(len(members))
        return outputs.with_values({Need.LOGITS: mean, Need.MEMBERS: members} | self.parts(need)).restrict_to(need)

    @property
    def mean(self) -> Tensor:  # type: ignore[override]
        return cast(Network, self.model[0]).mean  # type: ignore[index]

    @property
    def is_timm(self) -> bool:
        return False

    @property
    def gives_sequences(self) -> bool:
        return cast(Network, self.model[0]).gives_sequences  # type: ignore[index]

    @property
    def tokeniser(self) -> str | None:
        return cast(Network, self.model[0]).tokeniser  # type: ignore[index]

    @property
    def gives_preactivations(self) -> bool:
        return cast(Network, self.model[0]).gives_preactivations  # type: ignore[index]

    def classifier_module(self) -> nn.Module:
        return cast(Network, self.model[0]).classifier_module()  # type: ignore[index]
