"""`kdzoo.Distiller`: a student, its teacher and a method as one module, for a training loop of a user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from kdzoo.contract.batch import Losses
from kdzoo.contract.joint import ProcessGroup
from kdzoo.contract.needs import Need, Pass
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts
from kdzoo.distiller.example import default_shape, example_input, stated_shape
from kdzoo.distiller.losses import Blueprint, MethodLosses, module_kind, validate_epochs
from kdzoo.distiller.outputs import OutputsDistiller
from kdzoo.distiller.request import refusals, resolve
from kdzoo.errors import InputError, collect_problems
from kdzoo.models.forward import outputs
from kdzoo.models.pass_through import PassThrough, pass_through
from kdzoo.runs.spec import Pairing


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
        inputs: Tensor | None = None,
        teacher_inputs: Tensor | None = None,
        data: DataFacts | None = None,
        epochs: int | None = None,
        alpha: float | None = None,
        weight: float = 1.0,
        label_smoothing: float = 0.0,
        pairing: Pairing = "deep",
        seed: int = 0,
        process_group: ProcessGroup | None = None,
        **hyperparameters: Any,
    ) -> None:
        """Build the method for the two networks; the teacher is frozen in place.

        method: a name, a sum such as `at+hinton`, or an exact one, `0.1*ce+0.9*hinton`. teacher: None for methods that read
        none. data: the facts of the training data, for methods that build a memory of it. epochs: how many the training has, for
        methods that count them.
        inputs: a batch as the networks will be called with, or one sample of it, with which they are tried once; without it, a random
        one of `data.input_shape`, or of the size for which timm made a network of its own. Where nothing tells, methods without
        modules of their own are built at the first batch. teacher_inputs: the teacher's, where it is called with others.
        alpha: L = (1 - alpha) CE + alpha scale D; by default the published coefficients. weight: a factor on the method's.
        label_smoothing: of cross-entropy. pairing: how the networks' stages meet, from the deep end or from the left.
        seed: of the method's own start and random draws. process_group: the processes that train this student together, by default all;
        methods whose loss is no mean over samples gather their batches. hyperparameters: the method's, by keyword; where several terms
        of a sum have one of that name, `hinton={"temperature": 2}`.
        Raises InputError, with all that is wrong, for what the method cannot be, and for what these networks, or a single batch,
        cannot give it.
        """
        keywords = inspect.signature(Distiller.__init__).parameters
        spec = resolve(method, alpha=alpha, weight=weight, pairing=pairing, hyperparameters=hyperparameters, options=keywords)
        problems = list(refusals(spec, teacher=teacher is not None, same_inputs=teacher_inputs is None))
        if teacher is not None and _shared(student, teacher):
            problems.append("teacher: shares parameters with the student, and a teacher is frozen: pass a copy, copy.deepcopy(teacher)")
        with collect_problems(problems):
            validate_epochs(epochs)
        data_shape, shape = None, None
        with collect_problems(problems):
            data_shape = stated_shape(data)
        blueprint = Blueprint(spec, data, pairing, label_smoothing, seed)
        if inputs is None:
            shape = data_shape or default_shape(student, teacher)
            if shape is None and (early := blueprint.reads_shapes):
                problems.append(_unknown_inputs(early, student))
        if problems:
            raise InputError(*problems)
        super().__init__(spec, blueprint.build_without_shapes(), epochs, process_group)
        self.student = student
        self._networks = _Networks(PassThrough(student), None if teacher is None else PassThrough(teacher))
        self._blueprint = blueprint
        self._default_shape = shape if inputs is None and data_shape is None else None
        self._is_built = False
        if inputs is None and shape is not None:
            inputs = example_input(shape, student)
        if inputs is not None:
            self._build(inputs, teacher_inputs)
        if teacher is not None:
            teacher.requires_grad_(False).eval()

    def _build(self, inputs: Tensor, teacher_inputs: Tensor | None) -> None:
        """Try the networks on inputs such as these, and build the methods for what they give."""
        teacher, teacher_shapes = None, None
        with torch.autocast(_device(self.student).type, enabled=False):
            student, shapes = pass_through(self.student, inputs, "fresh")
            if self.teacher is not None:
                teacher, teacher_shapes = pass_through(self.teacher, inputs if teacher_inputs is None else teacher_inputs, "kept")
        self.objective = self._blueprint.build(shapes, teacher_shapes).to(**module_kind(next(self.student.parameters(), None)))
        self._networks = _Networks(student, teacher)
        self._is_built = True

    def _fit_to(self, inputs: Tensor, teacher_inputs: Tensor | None) -> None:
        """Build the methods if the first batch decides the shapes; raises InputError if they were built for other shapes.

        A network of timm's is taken to be called with inputs of the size it was made for.
        """
        if self._default_shape is not None and tuple(inputs.shape[1:]) != self._default_shape:
            if early := self._blueprint.reads_shapes:
                raise InputError(
                    f"inputs: the modules of {' and '.join(early)} were built for inputs of {self._default_shape}, which is timm's default "
                    f"for these networks, but these are of {tuple(inputs.shape[1:])}: pass inputs=, or data= with input_shape=, to "
                    "kdzoo.Distiller"
                )
            self._is_built = False
        self._default_shape = None
        if not self._is_built:
            self._build(inputs, teacher_inputs)

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
        process_group: ProcessGroup | None = None,
        **hyperparameters: Any,
    ) -> OutputsDistiller:
        """A method for two networks' outputs, for loops that make these themselves; it is called with (student, teacher, targets, index).

        student, teacher: examples, from which widths and stages are read. All else is as in `kdzoo.Distiller`.
        """
        keywords = inspect.signature(Distiller.from_outputs).parameters
        spec = resolve(method, alpha=alpha, weight=weight, pairing=pairing, hyperparameters=hyperparameters, options=keywords)
        return OutputsDistiller(
            spec,
            student,
            teacher,
            data=data,
            epochs=epochs,
            label_smoothing=label_smoothing,
            pairing=pairing,
            seed=seed,
            process_group=process_group,
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
        if not self._is_built or self._default_shape is not None:
            self._fit_to(inputs, teacher_inputs)
        student: Outputs = outputs(self._networks.student, {Pass.FIRST: inputs}, self.objective.needs.student | Need.LOGITS)
        return self._losses(student, self._teach(inputs, teacher_inputs), inputs, targets, index)

    def _teach(self, inputs: Tensor, teacher_inputs: Tensor | None) -> Outputs | None:
        """The teacher's outputs, in evaluation mode and without gradients; None where nothing is read of it."""
        needs, network = self.objective.needs.teacher, self._networks.teacher
        if network is None or not needs:
            return None
        if teacher_inputs is not None and Need.NETWORK in needs:
            raise InputError("teacher_inputs: a method of this sum shows the teacher the student's inputs")
        if any(module.training for module in network.model.modules()):  # whoever else holds the teacher has called train()
            network.model.eval()
        with torch.no_grad():
            return outputs(network, {Pass.FIRST: inputs if teacher_inputs is None else teacher_inputs}, needs)

    def parameter_groups(self, *, lr: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Groups for an optimiser: the student's parameters, and the methods' with the rates and decays that these declare."""
        return self._groups([p for p in self.student.parameters() if p.requires_grad], lr, weight_decay)

    def deployed(self) -> nn.Module:
        """The student as it ships, inputs -> class scores: itself, or with what a method adds to it (simkd); weights are shared."""
        network = self._networks.student
        deployed = self.objective.deployed(network)
        return self.student if deployed is network else deployed.train(self.training)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast the teacher too, which is no submodule."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._networks.teacher is not None:
            self._networks.teacher._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _unknown_inputs(methods: list[str], student: nn.Module) -> str:
    """The message where methods build modules before the first batch and the shape of a network's inputs is unknown."""
    return (
        f"inputs: needed by {' and '.join(methods)}, whose modules are built for the networks' widths before the first batch: pass a "
        "batch or one sample of it, or data=kdzoo.DataFacts(samples, classes, targets, input_shape=(C, H, W)); "
        f"{type(student).__name__} does not tell the shape of its inputs"
    )


def _shared(student: nn.Module, teacher: nn.Module) -> bool:
    """Whether two networks have a parameter in common."""
    return not {id(p) for p in student.parameters()}.isdisjoint(id(p) for p in teacher.parameters())


def _device(module: nn.Module) -> torch.device:
    first = next(module.parameters(), None)
    return torch.device("cpu") if first is None else first.device
