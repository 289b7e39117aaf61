"""The predictions of a network for a whole part of the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdzoo.contract.needs import Need
from kdzoo.data.dataset import Subset
from kdzoo.data.epoch import WHOLE, Shard
from kdzoo.data.loader import fetch
from kdzoo.data.views import evaluation_view, output_shape
from kdzoo.models.network import Network
from kdzoo.runs.recipe import Augment
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.task import Task

CPU_BATCH = 100
"""few enough that the C library keeps the memory of most maps from batch to batch: 500 images at once cost 0.8 to 1.8 times as much an
image, by how much memory is given back to the system in between, and where none is 1.0 to 1.1 times (docs/architecture.md)"""
GPU_BATCH = 1000
"""large enough for a GPU to compute longer than it takes to start its kernels"""
EVALUATION_PIXELS = 500 * 64 * 64
"""images in a batch have no more pixels than this together: a network's maps of 500 photographs take gigabytes"""


def batch_of(network: nn.Module, subset: Subset, augment: Augment, device: torch.device) -> int:
    """The batch size of predictions: what pays on the device, fewer where images are large."""
    height, width = output_shape(augment, *subset.images.shape[2:])
    side = getattr(network, "image_size", None) or 0
    most = CPU_BATCH if device.type == "cpu" else GPU_BATCH
    return max(1, min(most, EVALUATION_PIXELS // max(height * width, side * side)))


@torch.no_grad()
def predict(
    network: nn.Module,
    subset: Subset,
    augment: Augment,
    device: torch.device,
    task: Task = CLASSIFICATION,
    shard: Shard = WHOLE,
) -> Tensor:
    """A task's predictions of a network in evaluation mode, (N, K) float32 on the CPU, in the order of the subset.

    `network` is anything with `logits(images)`; the predictions of a classification are log-probabilities. shard: of the batches,
    one after the other, so that those of all shards behind each other are those of the subset, with the same bits.
    """
    training = network.training
    network.eval()
    chunks = []
    indices = torch.split(torch.arange(len(subset.targets), device=subset.images.device), batch_of(network, subset, augment, device))
    first, end = shard.cut(0, len(indices))
    for images in fetch(subset.images, indices[first:end], device):
        logits: Tensor = network.logits(evaluation_view(images, augment))  # type: ignore[operator]
        chunks.append(task.predict(logits).cpu())
    network.train(training)
    return torch.cat(chunks) if chunks else torch.empty(0)


class SampleEmbeddings:
    """The embeddings of a subset's samples by a frozen network, as they are without augmentation: positions (N,) -> (N, D), float32.

    The last ones are kept: students of one teacher ask for the same.
    """

    def __init__(self, network: Network, subset: Subset, augment: Augment, device: torch.device) -> None:
        self._network, self._subset, self._augment, self._device = network, subset, augment, device
        self._last: tuple[Tensor, Tensor] | None = None

    def __call__(self, positions: Tensor) -> Tensor:
        if self._last is None or not torch.equal(self._last[0], positions):
            self._last = positions.clone(), self._compute(positions)
        return self._last[1]

    @torch.no_grad()
    def _compute(self, positions: Tensor) -> Tensor:
        size = batch_of(self._network, self._subset, self._augment, self._device)
        batches = torch.split(positions.to(self._subset.images.device), size)
        inputs = fetch(self._subset.images, batches, self._device)
        return torch.cat([self._network(evaluation_view(part, self._augment), Need.EMBEDDING).embedding.float() for part in inputs])
