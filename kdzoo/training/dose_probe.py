"""One method in a measurement of doses: what its own module learns in the warm-up, and the gradients of its loss afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from kdzoo.contract import guard
from kdzoo.contract.batch import Batch, Losses
from kdzoo.contract.needs import Need
from kdzoo.contract.objective import Term
from kdzoo.contract.outputs import Outputs
from kdzoo.tasks.targets import is_labelled
from kdzoo.training.member import Member
from kdzoo.training.regularise import set_dropout


@dataclass
class DoseProbe:
    """One method on its way through a measurement: its objective as a member, and the squared norms of its gradients."""

    member: Member
    learner: Member
    """the student that learns from cross-entropy alone"""
    squares: list[Tensor] = field(default_factory=list)
    factor: float | None = None
    """on the loss that its own module learns in the warm-up (`_warm_up_factor`); None before the first batch with a label"""
    fault: Exception | None = None
    """why the method cannot be measured; nothing is computed for it from then on"""

    @property
    def term(self) -> Term:
        return self.member.objective.terms[0]

    @property
    def runs_network(self) -> bool:
        """Whether the method runs the student itself, and so needs a forward of its own."""
        return Need.NETWORK in self.member.needs

    @property
    def remembers(self) -> bool:
        """Whether the method's module has anything that a warm-up changes: parameters, or banks as buffers."""
        return any(True for _ in self.member.objective.parameters()) or any(True for _ in self.member.objective.buffers())

    def learn(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> None:
        """One step of the method's own module on detached outputs of the student."""
        self._attempt(partial(self._learn, student, teacher, batch))

    def add_square(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> None:
        """Add the squared norm of the loss's gradient on a batch."""
        self._attempt(partial(self._add_square, student, teacher, batch))

    def _attempt(self, act: Callable[[], None]) -> None:
        """Do a part of the measurement; an exception is the method's own, and is kept as its fault."""
        try:
            with guard.watch(f"the loss of {self.term.name!r}, or its backward,"):
                act()
        except Exception as error:
            self.fault = error

    def _learn(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> None:
        self.member.objective.train()
        if self.factor is None and bool(is_labelled(batch.targets).any()):
            self.factor = self._warm_up_factor(student, teacher, batch)
        detached = self._own_copy(student).map(lambda tensor: tensor.detach())
        loss, auxiliary = self._loss(detached, teacher, batch)
        loss = (self.factor or 0.0) * loss
        total = loss if auxiliary is None else loss + auxiliary
        parameters = [parameter for parameter in self.member.objective.parameters() if parameter.requires_grad]
        if not parameters or not total.requires_grad:
            return
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.member.set_rates(batch.clock.steps)
        self.member.update(Losses(total, {}, None, total), len(batch.index))
        self.member.end_step(len(batch.index))

    def _warm_up_factor(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> float:
        """The factor on the loss that the method's module learns: the published coefficient, or less where that is a dose above 1.

        From the first batch with a label, before which the module's loss counts for nothing. With a weight that was
        published for larger networks the module would diverge before the student learns.
        """
        published = self.term.method.card.published.term
        loss, _ = self._loss(self._own_copy(student), teacher, batch)
        of_term = float(squared_norm(loss, self.member.network))
        of_task = float(squared_norm(self.learner.objective.task_loss(student, batch), self.member.network))
        return min(published, math.sqrt(of_task / of_term)) if of_term > 0 and math.isfinite(of_term) else published

    def _add_square(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> None:
        loss, _ = self._loss(self._own_copy(student), teacher, batch)
        self.squares.append(squared_norm(loss, self.member.network))

    def _loss(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The method's loss and its auxiliary one; networks that it trains beside the student have the recipe's dropout, as in training."""
        set_dropout(self.member.run.recipe, batch.clock, self.member.learners[1:])
        return self.member.objective.loss_of(self.term, student, teacher, batch)

    def _own_copy(self, student: Outputs) -> Outputs:
        """The student's outputs; of those that methods share a copy with gradients for a user's method, which may change them."""
        shared = self.term.method.card.outside and not self.runs_network
        return student.map(Tensor.clone) if shared else student


def squared_norm(loss: Tensor, network: nn.Module) -> Tensor:
    """The squared norm of a loss's gradient over a network's trainable parameters, float64; a missing gradient is 0.

    The loss's graph is kept.
    """
    total = torch.zeros((), dtype=torch.float64, device=loss.device)
    if not loss.requires_grad:
        return total
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for gradient in torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True):
        total += 0 if gradient is None else gradient.double().square().sum()
    return total
