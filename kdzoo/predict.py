"""What a network says of a whole part of the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdzoo.data.images import Subset
from kdzoo.data.loader import fetch
from kdzoo.data.views import center
from kdzoo.spec import Augment

EVALUATION_BATCH = 500


@torch.no_grad()
def predict(network: nn.Module, subset: Subset, augment: Augment, device: torch.device) -> Tensor:
    """Log-probabilities of a network in evaluation mode, (N, K) float32 on the CPU, in the order of the subset.

    `network` is anything with `logits(images)`.
    """
    training = network.training
    network.eval()
    chunks = []
    indices = torch.split(torch.arange(len(subset.targets), device=subset.images.device), EVALUATION_BATCH)
    for images in fetch(subset.images, indices, device):
        logits: Tensor = network.logits(center(images, augment))  # type: ignore[operator]
        chunks.append(logits.float().log_softmax(1).cpu())
    network.train(training)
    return torch.cat(chunks)
