"""Random tensors, the outputs of made-up networks, and how large the tensors are that operations give."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs


def drawn(*shape: int, seed: int = 0, factor: float = 1.0) -> Tensor:
    """Standard normal float64 numbers times a factor."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * factor


def pair(*shape: int, seed: int = 0, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """What a student and a teacher of the same shape say."""
    return drawn(*shape, seed=2 * seed, factor=factor), drawn(*shape, seed=2 * seed + 1, factor=factor)


def outputs(owner: str, **values: Tensor | list[Tensor]) -> Outputs:
    return Outputs.of({Need[name.upper()]: value for name, value in values.items()}, owner=owner)


def batch_of(index: Tensor, targets: Tensor, seed: int = 0) -> Batch:
    return Batch(
        inputs=torch.zeros(len(index), 3, 4, 4, dtype=torch.uint8),
        targets=targets,
        index=index,
        clock=Progress(0, 1, 0, 1),
        generator=torch.Generator().manual_seed(seed),
    )


class Sizes(TorchDispatchMode):
    """Notes the largest tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = func(*args, **(kwargs or {}))
        for tensor in given if isinstance(given, tuple | list) else [given]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return given
