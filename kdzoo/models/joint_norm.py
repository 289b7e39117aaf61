"""Batch norm over the joint batch of several processes, for any network that calls torch.nn.functional.batch_norm.

torch's SyncBatchNorm does the same on GPUs, for networks whose layers are replaced by it; it refuses CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kdzoo.contract.joint import ProcessGroup, world_size


class JointBatchNorm(TorchFunctionMode):
    """While it is entered, batch norm in training takes mean and variance over the rows of all processes of a group.

    All processes have to run the same layers in the same order. Running statistics come out the same in all.
    """

    def __init__(self, group: ProcessGroup | None = None) -> None:
        super().__init__()
        self._group = group

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        return _batch_norm(self._group, *args, **kwargs) if func is F.batch_norm else func(*args, **kwargs)


def _batch_norm(
    group: ProcessGroup | None,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
    over = [axis for axis in range(values.ndim) if axis != 1]
    shape = [1, -1, *[1] * (values.ndim - 2)]
    own_mean = values.mean(over)
    own_spread = (values - own_mean.view(shape)).square().sum(over)
    own_count = torch.full_like(own_mean, values.numel() / values.shape[1])
    counts, means, spreads = _GatherAll.apply(torch.stack([own_count, own_mean, own_spread]), group).unbind(1)
    count = counts.sum(0)
    mean = (counts * means).sum(0) / count
    variance = (spreads + counts * (means - mean).square()).sum(0) / count
    centred = values - mean.view(shape)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            running_var.lerp_((variance * count / (count - 1)).to(running_var.dtype), momentum)
    normalised = centred * (variance + eps).rsqrt().view(shape)
    if weight is not None:
        normalised = normalised * weight.view(shape)
    if bias is not None:
        normalised = normalised + bias.view(shape)
    joint: Tensor = normalised.to(input.dtype)
    return joint


class _GatherAll(torch.autograd.Function):
    """The tensors of all processes, stacked in the order of their ranks; each takes the sum of all processes' gradients of its own."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: ProcessGroup | None) -> Tensor:
        ctx.group = group
        return _gather(tensor, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _gather(gradients[0], ctx.group).sum(0)[dist.get_rank(ctx.group)], None


def _gather(tensor: Tensor, group: ProcessGroup | None) -> Tensor:
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world_size(group))]
    dist.all_gather(parts, tensor.contiguous(), group=group)
    return torch.stack(parts)
