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
        """A step of every member that has not failed; a member whose loss cannot be computed fails alone."""
        losses: dict[int, Losses] = {}
        for number, given in enumerate(self._outputs(images, batch)):
            member = self.members[number]
            if member.failure is not None:
                continue
            try:
                member.objective.train()
                losses[number] = member.objective(given.only(member.need), teacher, batch)
            except Exception:  # kept with its traceback, as where members are trained one by one
                member.fail()
        if not losses:
            return
        totals = [self.members[number].scaler.scale(one.total) for number, one in losses.items()]
        torch.stack(totals).sum().backward()  # type: ignore[no-untyped-call]
        self.stack.share_gradients()
        for number, one in losses.items():
            try:
                self.members[number].update(one, len(batch.index), batch.clock.steps)
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


def together(members: Sequence[Member], images: Tensor) -> Together | str | None:
    """The members that can be trained as one; in words why they cannot; None where there are less than two."""
    fit = [member for member in members if not member.need & ~STACKABLE and not isinstance(member.optimizer, DOT)]
    if len(fit) < 2:
        return None
    made = stack_of([member.network for member in fit], images, Need.LOGITS | Need.STAGES | Need.EMBEDDING)
    return made if isinstance(made, str) else Together(tuple(fit), made)
