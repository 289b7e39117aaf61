"""The members of a cohort whose students are one batched computation: one forward and one backward for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.contract.batch import Batch, Losses, Progress
from kdzoo.contract.needs import Need, Pass
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.settings import current_settings
from kdzoo.models.placement import autocast
from kdzoo.training.dot import DOT
from kdzoo.training.member import Member, StepInputs
from kdzoo.training.regularise import set_dropout
from kdzoo.training.stacked import Stack, stack_of


@dataclass(frozen=True)
class BatchedMembers:
    """Members and the stack of their students, in the same order."""

    members: tuple[Member, ...]
    stack: Stack

    @property
    def active(self) -> list[Member]:
        return [member for member in self.members if member.failure is None]

    def begin_step(self, clock: Progress) -> None:
        for member in self.active:
            member.begin_step(clock)

    def compute_step(self, step_inputs: StepInputs) -> None:
        """A step of every member that has not failed; one whose loss or its backward cannot be computed fails alone."""
        before = current_settings()
        self._compute(step_inputs, lambda member: member.isolate_failure(before))

    def compute_unguarded(self, step_inputs: StepInputs) -> None:
        """The same, but that an exception ends the step: what cannot be recorded is no failure of a member."""
        self._compute(step_inputs, lambda member: nullcontext())

    def _compute(self, step_inputs: StepInputs, guard: Callable[[Member], AbstractContextManager[None]]) -> None:
        losses_by_member: dict[int, Losses] = {}
        leaves: list[tuple[Tensor, Tensor]] = []
        for number, outputs in enumerate(self._outputs(step_inputs.inputs[Pass.FIRST], step_inputs.batch)):
            member = self.members[number]
            if member.failure is not None:
                continue
            with guard(member):
                losses, its = _to_outputs(member, outputs, step_inputs.teacher, step_inputs.batch)
            if member.failure is None:
                losses_by_member[number] = losses
                leaves += its
        if not leaves:
            return
        torch.autograd.backward([output for output, _ in leaves], [gradient for _, gradient in leaves])
        self.stack.share_gradients()
        for number, losses in losses_by_member.items():
            with guard(self.members[number]):
                self.members[number].update(losses, step_inputs.size)

    def clear_gradients(self) -> None:
        """Forget what a backward that was broken off has left."""
        for member in self.members:
            member.clear_gradients()
        for stacked in self.stack.parameters.values():
            stacked.grad = None

    def end_step(self, samples: int) -> None:
        for member in self.active:
            member.end_step(samples)

    def layer_stream(self, step: int) -> AbstractContextManager[None]:
        """A block in which the students' layers draw from their random stream of a step."""
        return self.members[0].layer_stream(step)

    def prepare_recording(self) -> None:
        for member in self.members:
            member.prepare_recording()

    def _outputs(self, images: Tensor, batch: Batch) -> list[Outputs]:
        """The outputs of every student that some member reads, contiguous."""
        first, need = self.members[0], Need.LOGITS
        for member in self.members:
            need |= member.needs.outputs if member.failure is None else Need.NOTHING
        set_dropout(first.run.recipe, batch.clock, [self.stack.base])
        own_stream = self.layer_stream(batch.clock.step) if first.numbers is None else nullcontext()
        with own_stream, autocast(first.run.recipe, first.device):
            outputs = self.stack.forward(images, need)
        return [one.map(Tensor.contiguous) for one in outputs]


def _to_outputs(member: Member, outputs: Outputs, teacher: Outputs | None, batch: Batch) -> tuple[Losses, list[tuple[Tensor, Tensor]]]:
    """A member's losses, and their backward up to its student's outputs: the outputs that it reaches, with their gradients.

    What a member's own code can break ends here; behind it lies what the stack alone computes.
    """
    leaves: list[tuple[Tensor, Tensor]] = []
    from_outside = any(term.method.card.outside for term in member.objective.terms)

    def leaf(tensor: Tensor) -> Tensor:
        # Outputs are parts of one tensor, whose version all of them share: a user's method gets a copy to change.
        own = tensor.detach().clone() if from_outside else tensor.detach()
        leaves.append((tensor, own.requires_grad_()))
        return leaves[-1][1]

    member.objective.train()
    losses: Losses = member.objective(outputs.restrict_to(member.needs).map(leaf), teacher, batch)
    member.scaler.scale(losses.total).backward()  # type: ignore[no-untyped-call]
    return losses, [(tensor, own.grad) for tensor, own in leaves if own.grad is not None]


def batch_members(members: Sequence[Member], images: Tensor) -> BatchedMembers | str | None:
    """The members that can be trained as one; a reason (str) why they cannot; None where fewer than two qualify."""
    fit = [member for member in members if member.needs.batchable and not isinstance(member.optimizer, DOT)]
    if len(fit) < 2:
        return None
    stack = stack_of([member.network for member in fit], images, Need.LOGITS | Need.STAGES | Need.EMBEDDING)
    return stack if isinstance(stack, str) else BatchedMembers(tuple(fit), stack)
