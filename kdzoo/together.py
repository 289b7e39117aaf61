"""The members of a cohort whose students are one batched computation: one forward and one backward for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.dot import DOT
from kdzoo.execution import autocast
from kdzoo.member import Member
from kdzoo.seeds import global_stream
from kdzoo.signals import Batch, Losses, Need, Outputs
from kdzoo.stack import STACKABLE, Stack, stack_of


@dataclass(frozen=True)
class Together:
    """Members and the stack of their students, in the same order."""

    members: tuple[Member, ...]
    stack: Stack

    def learn(self, images: Tensor, teacher: Outputs | None, batch: Batch) -> None:
        """A step of every member that has not failed; one whose loss or its backward cannot be computed fails alone."""
        learned: dict[int, Losses] = {}
        reached: list[tuple[Tensor, Tensor]] = []
        for number, outputs in enumerate(self._outputs(images, batch)):
            member = self.members[number]
            if member.failure is not None:
                continue
            try:
                learned[number], its = _to_outputs(member, outputs, teacher, batch)
            except Exception:  # kept with its traceback, as where members are trained one by one
                member.fail()
                continue
            reached += its
        if not reached:
            return
        torch.autograd.backward([output for output, _ in reached], [gradient for _, gradient in reached])
        self.stack.share_gradients()
        for number, losses in learned.items():
            try:
                self.members[number].update(losses, len(batch.index), batch.clock.steps)
            except Exception:
                self.members[number].fail()

    def _outputs(self, images: Tensor, batch: Batch) -> list[Outputs]:
        """What every student gives of what some member reads, contiguous."""
        first, need = self.members[0], Need.LOGITS
        for member in self.members:
            need |= member.need if member.failure is None else Need.NOTHING
        with global_stream(first.run.seed, "layers", batch.clock.step, device=first.device), autocast(first.run.recipe, first.device):
            given = self.stack.forward(images, need)
        return [one.map(Tensor.contiguous) for one in given]


def _to_outputs(member: Member, outputs: Outputs, teacher: Outputs | None, batch: Batch) -> tuple[Losses, list[tuple[Tensor, Tensor]]]:
    """A member's losses, and their backward as far as its student's outputs: those that it reaches, with their gradients.

    What a member's own code can break ends here; behind it lies what the stack alone computes.
    """
    leaves: list[tuple[Tensor, Tensor]] = []

    def leaf(tensor: Tensor) -> Tensor:
        leaves.append((tensor, tensor.detach().requires_grad_()))
        return leaves[-1][1]

    member.objective.train()
    losses: Losses = member.objective(outputs.only(member.need).map(leaf), teacher, batch)
    member.scaler.scale(losses.total).backward()  # type: ignore[no-untyped-call]
    return losses, [(tensor, own.grad) for tensor, own in leaves if own.grad is not None]


def together(members: Sequence[Member], images: Tensor) -> Together | str | None:
    """The members that can be trained as one; in words why they cannot; None where there are less than two."""
    fit = [member for member in members if not member.need & ~STACKABLE and not isinstance(member.optimizer, DOT)]
    if len(fit) < 2:
        return None
    made = stack_of([member.network for member in fit], images, Need.LOGITS | Need.STAGES | Need.EMBEDDING)
    return made if isinstance(made, str) else Together(tuple(fit), made)
