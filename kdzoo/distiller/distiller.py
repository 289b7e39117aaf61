"""`kdzoo.Distiller`: a student, its teacher and a method as one module, for a training loop of a user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from kdzoo.contract.batch import Losses
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts
from kdzoo.distiller.losses import MethodLosses, build, checked_epochs
from kdzoo.distiller.outputs import OutputsDistiller
from kdzoo.distiller.request import Pairing, refusals, resolve
from kdzoo.errors import InputError, noting
from kdzoo.models.pass_through import PassThrough, pass_through
from kdzoo.training.member import outputs


@dataclass
class _Networks:
    """The two networks as methods see them; no module, so that neither is registered here."""

    student: PassThrough
    teacher: PassThrough | None


class Distiller(MethodLosses):
    """A student with its teacher and a method, which gives the loss of a batch: cross-entropy and the method's terms, weighed.

    The student is a submodule; the teacher is none: `parameters()` and `state_dict()` have the student's and the method's
    own, and the teacher moves with `.to()`, stays in evaluation mode and takes no gradient.
    """

    student: nn.Module

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        method: str,
        *,
        inputs: Tensor,
        teacher_inputs: Tensor | None = None,
        data: DataFacts | None = None,
        epochs: int | None = None,
        alpha: float | None = None,
        weight: float = 1.0,
        label_smoothing: float = 0.0,
        pairing: Pairing = "deep",
        seed: int = 0,
        **hyperparameters: Any,
    ) -> None:
        """Build the method for the two networks; the teacher is frozen in place.

        method: a name, a sum such as `at+hinton`, or an exact one, `0.1*ce+0.9*hinton`. teacher: None for methods that read
        none. inputs: a batch as the networks will be called with, or one sample of it, with which they are tried once;
        teacher_inputs: the teacher's, where it is called with others. data: the facts of the training data, for methods that
        build a memory of it. epochs: how many the training has, for methods that count them.
        alpha: L = (1 - alpha) CE + alpha scale D; by default the published coefficients. weight: a factor on the method's.
        label_smoothing: of cross-entropy. pairing: how the networks' stages meet, from the deep end or from the left.
        seed: of the method's own start and random draws. hyperparameters: the method's, by keyword; where several terms of a
        sum have one of that name, `hinton={"temperature": 2}`.
        Raises InputError, with all that is wrong, for what the method cannot be, and for what these networks, or a single batch,
        cannot give it.
        """
        given = inspect.signature(Distiller.__init__).parameters
        spec = resolve(method, alpha=alpha, weight=weight, pairing=pairing, hyperparameters=hyperparameters, options=given)
        problems = list(refusals(spec, teacher=teacher is not None, same_inputs=teacher_inputs is None))
        if teacher is not None and _shared(student, teacher):
            problems.append("teacher: shares parameters with the student, and a teacher is frozen: pass a copy, copy.deepcopy(teacher)")
        with noting(problems):
            checked_epochs(epochs)
        if problems:
            raise InputError(*problems)
        ours, shapes = pass_through(student, inputs, "fresh")
        shown = inputs if teacher_inputs is None else teacher_inputs
        theirs, taught = (None, None) if teacher is None else pass_through(teacher, shown, "kept")
        objective = build(spec, shapes, taught, data=data, pairing=pairing, label_smoothing=label_smoothing, seed=seed)
        super().__init__(spec, objective.to(_device(student)), epochs)
        self.student = student
        self._networks = _Networks(ours, theirs)
        if teacher is not None:
            teacher.requires_grad_(False).eval()

    @staticmethod
    def from_outputs(
        method: str,
        *,
        student: Outputs,
        teacher: Outputs | None = None,
        data: DataFacts | None = None,
        epochs: int | None = None,
        alpha: float | None = None,
        weight: float = 1.0,
        label_smoothing: float = 0.0,
        pairing: Pairing = "deep",
        seed: int = 0,
        **hyperparameters: Any,
    ) -> OutputsDistiller:
        """A method for two networks' outputs, for loops that make these themselves; it is called with (student, teacher, targets, index).

        student, teacher: examples, from which widths and stages are read. All else is as in `kdzoo.Distiller`.
        """
        given = inspect.signature(Distiller.from_outputs).parameters
        spec = resolve(method, alpha=alpha, weight=weight, pairing=pairing, hyperparameters=hyperparameters, options=given)
        return OutputsDistiller(
            spec, student, teacher, data=data, epochs=epochs, label_smoothing=label_smoothing, pairing=pairing, seed=seed
        )

    @property
    def teacher(self) -> nn.Module | None:
        """The teacher, frozen; no submodule of this one."""
        return None if self._networks.teacher is None else self._networks.teacher.model

    def forward(self, inputs: Tensor, targets: Tensor, index: Tensor | None = None, *, teacher_inputs: Tensor | None = None) -> Losses:
        """The losses of a batch: `total` is what to minimise, `parts` are its terms before their weights, by name (`ce` first).

        inputs: as both networks take them, (B, ...); teacher_inputs: the teacher's, where they differ. targets: class numbers
        (B,) int64, -1 for a sample without a label, or the shares of the classes (B, K), of mixed images. index: the position
        of each sample in the training set, (B,) int64, for methods that remember samples.
        Raises InputError for what a method reads and was not given.
        """
        student: Outputs = outputs(self._networks.student, {Need.NOTHING: inputs}, self.objective.needs.student | Need.LOGITS)
        return self._losses(student, self._taught(inputs, teacher_inputs), inputs, targets, index)

    def _taught(self, inputs: Tensor, teacher_inputs: Tensor | None) -> Outputs | None:
        """The teacher's outputs, in evaluation mode and without gradients; None where nothing is read of it."""
        need, network = self.objective.needs.teacher, self._networks.teacher
        if network is None or not need:
            return None
        if teacher_inputs is not None and Need.NETWORK in need:
            raise InputError("teacher_inputs: a method of this sum shows the teacher the student's inputs")
        if any(module.training for module in network.model.modules()):  # whoever else holds the teacher has called train()
            network.model.eval()
        with torch.no_grad():
            return outputs(network, {Need.NOTHING: inputs if teacher_inputs is None else teacher_inputs}, need)

    def parameter_groups(self, *, lr: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Groups for an optimiser: the student's parameters, and the methods' with the rates and decays that these declare."""
        return self._groups([p for p in self.student.parameters() if p.requires_grad], lr, weight_decay)

    def deployed(self) -> nn.Module:
        """The student as it ships, inputs -> class scores: itself, or with what a method adds to it (simkd); weights are shared."""
        network = self._networks.student
        shipped = self.objective.shipped(network)
        return self.student if shipped is network else shipped.train(self.training)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast the teacher too, which is no submodule."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._networks.teacher is not None:
            self._networks.teacher._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _shared(student: nn.Module, teacher: nn.Module) -> bool:
    """Whether two networks have a parameter in common."""
    return not {id(p) for p in student.parameters()}.isdisjoint(id(p) for p in teacher.parameters())


def _device(module: nn.Module) -> torch.device:
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device
