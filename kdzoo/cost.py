"""What a step costs a run alone: a probe of a few steps with a live teacher and nothing shared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo import guard
from kdzoo.cohort import Cohort, gather_batch
from kdzoo.member import Member
from kdzoo.signals import PASSES, Clock
from kdzoo.teachers import teach

WARM_UP = 1
TIMED = 5


def probe(cohort: Cohort) -> dict[str, Any]:
    """Median seconds of a step, bytes held at its peak, extra parameters, views and network passes, of a lone member.

    `cohort` has one fresh member that is thrown away afterwards: the probe trains it. The bytes are those of the
    parameters, gradients and optimiser state of student and objective, of the teacher's parameters, and of what
    autograd saves between forward and backward; they are counted, not sampled, so they are the same on every device.
    """
    (member,) = cohort.members
    clock = Clock(0, 1, 0, WARM_UP + TIMED)
    looks = cohort.looks_of(0)
    index, images = next(cohort.batches_of(0, looks, 0))
    here = {need: look.to(cohort.execution.device) for need, look in looks.items()}
    seconds = []
    saved = 0
    for _ in range(WARM_UP + TIMED):
        _synchronise(cohort)
        began = time.perf_counter()
        with guard.watched(f"the network of {member.run.id}, or the backward of its loss,"):
            with saved_bytes() as count:
                seen, batch = gather_batch(cohort, index, images, here, clock)
                losses = member.losses(seen, teach(cohort, seen), batch)
            member.learn(losses, len(index), clock.steps)
        _synchronise(cohort)
        seconds.append(time.perf_counter() - began)
        saved = max(saved, sum(count.values()))
    median = statistics.median(seconds[WARM_UP:])
    reads_teacher = bool(member.objective.needs.teacher)
    passes = 1 + len(list(PASSES & member.need))
    teacher_passes = 1 + len(list(PASSES & member.objective.needs.teacher)) if reads_teacher else 0
    return {
        "step_seconds": median,
        "train_seconds": median * cohort.steps_an_epoch * member.run.recipe.epochs,
        "memory_bytes": saved + _held(member) + (_bytes(cohort.teacher.network) if reads_teacher and cohort.teacher else 0),
        "extra_parameters": sum(p.numel() for p in member.objective.parameters()),
        "views": passes,
        "student_passes": passes,
        "teacher_passes": teacher_passes,
    }


@contextmanager
def saved_bytes() -> Iterator[dict[int, int]]:
    """Bytes of every storage that autograd saves for the backward in a block, by address."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield storages


def _held(member: Member) -> int:
    """Parameters, their gradients, buffers, and the optimiser's state."""
    parameters = sum(p.numel() * p.element_size() for m in (member.network, member.objective) for p in m.parameters())
    state = sum(v.numel() * v.element_size() for s in member.optimizer.state.values() for v in s.values() if isinstance(v, Tensor))
    return parameters + _bytes(member.network) + _bytes(member.objective) + state


def _bytes(module: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])


def _synchronise(cohort: Cohort) -> None:
    if cohort.execution.device.type == "cuda":
        torch.cuda.synchronize(cohort.execution.device)
