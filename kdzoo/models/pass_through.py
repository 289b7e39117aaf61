"""A network of a training loop of a user's own: a module that is given its inputs as they are."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from kdzoo.contract.shapes import Shapes
from kdzoo.models.build import draw_weights
from kdzoo.models.examine import Head, examine
from kdzoo.models.measure import measure_outputs
from kdzoo.models.network import Network, Peer


class PassThrough(Network):
    """A model whose inputs are neither scaled nor resized nor normalised: whoever calls it has done that."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, channels=0, mean=[0.0], std=[1.0])

    def normalise(self, images: Tensor) -> Tensor:
        return images


def pass_through(model: nn.Module, inputs: Tensor, head: Head) -> tuple[PassThrough, Shapes]:
    """A model as a network, and what its outputs measure for inputs such as these; neither is changed.

    inputs: one or more samples as the model takes them, moved to where its parameters are. head: `fresh` for a model that
    is trained. Raises InputError for a model that gives no class scores (B, K) for them, and for one that is trained and
    ends in a softmax.
    """
    network = PassThrough(model)
    weight = next(model.parameters(), None)
    sample = (inputs if weight is None else inputs.to(weight.device))[:2]
    several = sample if len(sample) > 1 else torch.cat([sample, sample])  # a batch norm in training takes no single sample
    examine(network, several, name=type(model).__name__, classes=None, head=head)
    height = inputs.shape[2] if inputs.ndim == 4 else 1
    return network, replace(measure_outputs(network, several, height), fresh=lambda: _fresh(network))


def _fresh(network: PassThrough) -> Peer:
    """A new network of the same architecture with a random start drawn from torch's present stream."""
    seed = int(torch.randint(2**31, ()))
    peer = copy.deepcopy(network).requires_grad_(True)
    draw_weights(peer.model, seed)
    return Peer(peer)
