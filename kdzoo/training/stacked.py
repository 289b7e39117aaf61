"""Students of one architecture as one batched computation: many small networks keep a GPU busy that one cannot.

The parameters of all students lie in one tensor for each name, (M, ...), of which every student's own are views: whatever
is done to a student (its optimiser's step, a checkpoint, an evaluation) is done to its part of the stack. Only the
forward and the backward are shared.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.models.network import Network
from kdzoo.text import first_line


class Stack:
    """The networks of `students`, all of one architecture, as one."""

    def __init__(self, students: Sequence[Network]) -> None:
        self.base = copy.deepcopy(students[0])
        self.base.compiled_batch_size = None  # what is batched cannot be compiled as well
        self._own = [dict(student.named_parameters()) for student in students]
        buffers = [dict(student.named_buffers()) for student in students]
        self.parameters = {name: _stack([own[name] for own in self._own]).requires_grad_() for name in self._own[0]}
        self.buffers = {name: _stack([own[name] for own in buffers]) for name in buffers[0]}

    def forward(self, images: Tensor, need: Need) -> list[Outputs]:
        """What every student gives for the same images, each its part (a view) of one forward of all."""
        self.base.train()

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> dict[str, Any]:
            outputs: Outputs = functional_call(self.base, (parameters, buffers), (images, need))
            return {str(kind.name): outputs.get(kind) for kind in need if outputs.get(kind) is not None}

        # Students of a cohort have the same seed and therefore, one by one, the same masks of dropout: "same" here.
        values = torch.vmap(one, randomness="same")(self.parameters, self.buffers)
        return [
            Outputs.of({Need[name]: _part(value, number) for name, value in values.items()}, owner="network")
            for number in range(len(self._own))
        ]

    def share_gradients(self) -> None:
        """Give every student its part of the gradients that a backward has left in the stack."""
        for name, stacked in self.parameters.items():
            for number, own in enumerate(self._own):
                own[name].grad = None if stacked.grad is None else stacked.grad[number]
            stacked.grad = None


def stack_of(students: Sequence[Network], images: Tensor, need: Need) -> Stack | str:
    """A stack of the students, or why their architecture cannot be one, found by a trial that leaves them as they are."""
    try:
        with torch.no_grad():
            Stack(copy.deepcopy(list(students))).forward(images, need)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        return f"students are trained one at a time: {first_line(error)}"
    return Stack(students)


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """Put all of them into one tensor (M, ...); they become views of it."""
    whole = torch.stack([tensor.detach() for tensor in tensors])
    for number, tensor in enumerate(tensors):
        tensor.data = whole[number]
    return whole


def _part(value: Any, number: int) -> Any:
    return [item[number] for item in value] if isinstance(value, list) else value[number]
