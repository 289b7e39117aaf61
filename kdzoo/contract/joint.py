"""The joint batch of several processes that train one student, each on its own part of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

ProcessGroup = Any
"""torch.distributed.ProcessGroup, which builds of torch without distributed training lack"""


def world_size(group: ProcessGroup | None) -> int:
    """How many processes train together; 1 where torch.distributed is not initialised."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


class JointBatch:
    """What the processes of a group make of their parts of one batch, in the order of their ranks.

    A loss of the joint batch is computed by every process, from the rows of all. A loss that is a mean over samples is computed by each
    of its own rows and multiplied by `share`. DDP takes the mean of all processes' gradients, which then is that of the joint batch
    for either.
    """

    def __init__(self, sizes: Sequence[int], rank: int, group: ProcessGroup | None = None) -> None:
        """sizes: how many rows each process has. rank: of this one. All processes have to call `gather` together."""
        self._sizes = list(sizes)
        self._rank = rank
        self._group = group
        self._gathered: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def share(self) -> float:
        """The rows of this process beside the mean of all processes' rows."""
        return self._sizes[self._rank] * len(self._sizes) / sum(self._sizes)

    def gather(self, tensor: Tensor) -> Tensor:
        """The rows of all processes, (B', ...), of which those of this one (B, ...) take gradients; each tensor travels once."""
        known = self._gathered.get(id(tensor))
        if known is None:
            rows: Tensor = _Gather.apply(tensor, self._sizes, self._rank, self._group)
            known = self._gathered[id(tensor)] = (tensor, rows)  # the tensor is kept, so that no other one gets its id
        return known[1]


def join(rows: int, device: torch.device, group: ProcessGroup | None = None) -> JointBatch:
    """The joint batch of which this process has so many rows; all processes have to call this together."""
    own = torch.tensor([rows], device=device)
    counts = [torch.empty_like(own) for _ in range(world_size(group))]
    dist.all_gather(counts, own, group=group)
    return JointBatch([int(count) for count in counts], dist.get_rank(group), group)


class _Gather(torch.autograd.Function):
    """All processes' rows, filled up to the longest batch on the way.

    For a gradient that is the joint batch's after DDP's mean, each process passes on what falls on its own rows times their number.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: list[int], rank: int, group: ProcessGroup | None) -> Tensor:
        ctx.sizes, ctx.rank = sizes, rank
        padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        gathered = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(gathered, padded, group=group)
        return torch.cat([rows[:size] for rows, size in zip(gathered, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        start = sum(ctx.sizes[: ctx.rank])
        return gradients[0][start : start + ctx.sizes[ctx.rank]] * len(ctx.sizes), None, None, None
