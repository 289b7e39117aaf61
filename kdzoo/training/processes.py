"""The processes that train a cohort together: each has the same members and computes its shard of every batch.

A run's numbers are those of one process up to rounding: losses that are no mean over samples, cross-entropy and batch norm are of the
joint batch, and DDP takes the mean of the gradients. Layers that draw, such as dropout, draw in each process for itself.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdzoo.contract.batch import Batch, Losses
from kdzoo.contract.joint import JointBatch, ProcessGroup
from kdzoo.contract.objective import Objective
from kdzoo.contract.outputs import Outputs
from kdzoo.data.epoch import Inputs, Shard
from kdzoo.errors import KdzooError
from kdzoo.models.joint_norm import JointBatchNorm
from kdzoo.models.network import Network

Forward = Callable[[Inputs, Batch, int], Outputs]
"""a student's outputs for a process's shard of a batch, by the rank of the process"""


class ProcessesBroken(KdzooError):
    """One of the processes that train together has failed, and with it all of them; the runs have their last checkpoints."""


OF_GLOO = re.compile(r"\[\S*/gloo/[\w/]+\.(cc|h):\d+\] ")
"""how gloo's errors begin: with a place in its own source (GLOO_ERROR_MSG in its common/error.h); torch has no class for them"""


def is_of_group(error: BaseException) -> bool:
    """Whether an exception says that the processes no longer reach each other, which is no fault of a run's.

    Those of nccl and of the store are of torch's class; those of gloo are plain errors that begin with a place in gloo's source.
    """
    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and OF_GLOO.match(str(error)) is not None)


@dataclass(frozen=True)
class Processes:
    """All processes of a cohort as one of them sees them.

    shard: its own part of every batch. control: the group in which they agree on what to do, of tensors on the CPU; what they
    compute travels in the default group.
    """

    shard: Shard
    control: ProcessGroup

    @property
    def writes(self) -> bool:
        """Whether this is the one that writes checkpoints, metrics and results."""
        return self.shard.rank == 0

    def agree(self, value: int) -> int:
        """The first process's value, in all of them."""
        number = torch.tensor([value])
        dist.broadcast(number, 0, group=self.control)
        return int(number)

    def collect(self, rows: Tensor) -> Tensor:
        """The rows (B, ...) of all processes on the CPU, in the order of their ranks; one may have none, of shape (0,)."""
        parts: list[Any] = [None] * self.shard.count
        dist.all_gather_object(parts, rows, group=self.control)
        return torch.cat(parts)

    def joint_batch(self, size: int) -> JointBatch:
        """A batch of so many samples, of which each process has its shard."""
        return JointBatch(self.shard.sizes(size), self.shard.rank)

    def mean(self, losses: Losses) -> Losses:
        """The losses of the joint batch, of which each process has its own contribution, detached; the same in all."""
        own = torch.stack([losses.total.detach(), *(part.detach() for part in losses.parts.values())])
        of_processes = [torch.empty_like(own) for _ in range(self.shard.count)]
        dist.all_gather(of_processes, own)
        total, *parts = torch.stack(of_processes).mean(0)
        return replace(losses, total=total, parts=dict(zip(losses.parts, parts, strict=True)))

    def wrap(self, network: Network, objective: Objective, forward: Forward) -> DistributedDataParallel:
        """The forward of a student and its losses, the mean of whose gradients all processes take in the backward."""
        losses = _Losses(network, objective, forward, self)
        return DistributedDataParallel(losses, find_unused_parameters=True, **buffers_as_they_are(DistributedDataParallel))


def buffers_as_they_are(ddp: type[nn.Module]) -> dict[str, Any]:
    """The option of DDP by which no buffer is copied between processes in a forward: they are the same in all anyway.

    Later versions of torch call it by another name, and copy buffers once at the start.
    """
    known = inspect.signature(ddp).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}


class _Losses(nn.Module):
    """A student's forward and losses of its shard of a batch, as one module with all that learns."""

    def __init__(self, network: Network, objective: Objective, forward: Forward, processes: Processes) -> None:
        super().__init__()
        self.network = network
        self.objective = objective
        self._forward_student = forward
        self._processes = processes

    def forward(self, inputs: Inputs, teacher: Outputs | None, batch: Batch, size: int) -> Losses:
        with JointBatchNorm():
            student = self._forward_student(inputs, batch, self._processes.shard.rank)
        self.objective.joint = self._processes.joint_batch(size)
        try:
            losses: Losses = self.objective(student, teacher, batch)
        finally:
            self.objective.joint = None
        return losses
