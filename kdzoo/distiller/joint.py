"""The joint batch of several processes that train one student, for methods that remember samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

ProcessGroup = Any
"""torch.distributed.ProcessGroup, which builds of torch without distributed training lack"""


def world_size(group: ProcessGroup | None) -> int:
    """How many processes train together; 1 where torch.distributed is not initialised."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def gather_of(batch: int, device: torch.device, group: ProcessGroup | None) -> Callable[[Tensor], Tensor]:
    """What makes of this process's rows (`batch`, ...) those of all processes (B', ...), in the order of their ranks.

    Every process then computes the same loss of the joint batch, and DDP takes the mean of all processes' gradients: for a gradient
    that is the joint batch's, each passes on what falls on its own rows times the number of processes.
    """
    own = torch.tensor([batch], device=device)
    counts = [torch.empty_like(own) for _ in range(world_size(group))]
    dist.all_gather(counts, own, group=group)
    sizes = [int(count) for count in counts]
    rank = dist.get_rank(group)

    def gather(tensor: Tensor) -> Tensor:
        rows: Tensor = _Gather.apply(tensor, sizes, rank, group)
        return rows

    return gather


class _Gather(torch.autograd.Function):
    """All processes' rows, filled up to the longest batch on the way."""

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
