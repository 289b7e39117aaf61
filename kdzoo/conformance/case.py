"""A method with its built module and made-up outputs of two networks, on which the checks try it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.faults import fault_of_loss, fault_of_module
from kdzoo.contract.method import LossWithAux, Method
from kdzoo.contract.needs import Need, NetworkNeeds, Pass
from kdzoo.contract.outputs import Outputs, with_passes
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.models.measure import with_random_embeddings
from kdzoo.seeds import generator, global_stream

CLASSES, SAMPLES, BATCH, TOKENS = 5, 40, 6, 4


STUDENT = Shapes(CLASSES, 5, (StageShape(3, 8, 8, 1), StageShape(4, 4, 4, 2), StageShape(5, 2, 2, 4)))


TEACHER = Shapes(CLASSES, 8, (StageShape(4, 8, 8, 1), StageShape(6, 4, 4, 2), StageShape(8, 4, 4, 2)))


def shapes_for(method: Method, shapes: Shapes) -> Shapes:
    """The same widths as `method` would meet them: stages over the tokens of a text where it learns from texts alone."""
    if not method.card.of_texts_alone:
        return shapes
    return replace(shapes, stages=tuple(StageShape(stage.channels, 1, TOKENS, 1) for stage in shapes.stages), sequences=True)


class Fault(Exception):
    """A check's complaint, in words for the method's author."""


@dataclass
class Case:
    """A method with its built module and made-up outputs of two networks."""

    method: Method
    module: nn.Module
    student: dict[Need, Any]
    teacher: dict[Need, Any]
    student_passes: dict[Pass, Outputs]
    teacher_passes: dict[Pass, Outputs]
    read: dict[str, NetworkNeeds] = field(default_factory=dict)
    seed: int = 0

    def loss(self) -> Tensor:
        """The loss of one batch, with the auxiliary loss where there is one."""
        result = self._result()
        return result.loss + result.auxiliary if isinstance(result, LossWithAux) else result

    def distilled(self) -> Tensor:
        """The loss of one batch without the auxiliary loss."""
        result = self._result()
        return result.loss if isinstance(result, LossWithAux) else result

    def _result(self) -> Tensor | LossWithAux:
        result = self.method.loss(*self.inputs(), self.module)
        for part in result if isinstance(result, LossWithAux) else (result,):
            if fault := fault_of_loss(part):
                raise Fault(fault)
        return result

    def inputs(self) -> tuple[Outputs, Outputs, Batch]:
        """Outputs of both networks and a batch, which hold everything and record what is read."""
        batch = Batch(
            inputs=torch.zeros(self.batch, 3, 8, 8, dtype=torch.uint8),
            targets=torch.arange(self.batch) % CLASSES,
            index=torch.arange(self.batch) + CLASSES * 2,
            clock=Progress(0, 2, 3, 10),
            generator=generator(self.seed, "conformance"),
            on_read=self._recorder("batch"),
        )
        student = Outputs.of(self.student, owner="student", on_read=self._recorder("student"))
        teacher = Outputs.of(self.teacher, owner="teacher", on_read=self._recorder("teacher"))
        return with_passes({Pass.FIRST: student, **self.student_passes}), with_passes({Pass.FIRST: teacher, **self.teacher_passes}), batch

    @property
    def batch(self) -> int:
        return len(self.student[Need.LOGITS])

    def _recorder(self, owner: str) -> Callable[[Need | Pass], None]:
        def record(what: Need | Pass) -> None:
            self.read[owner] = self.read.get(owner, NetworkNeeds(Need.NOTHING)) | what

        return record


def case(
    method: Method,
    *,
    student: Shapes = STUDENT,
    teacher: Shapes = TEACHER,
    batch: int = BATCH,
    dtype: torch.dtype = torch.float32,
    scale: float = 1.0,
    seed: int = 0,
) -> Case:
    """A fresh case with random outputs of the given shapes; both networks' tensors take gradients, so that leaks show."""
    targets = torch.arange(SAMPLES) % CLASSES
    student, teacher = shapes_for(method, student), shapes_for(method, teacher)
    with global_stream(seed, "classifiers"):
        student, teacher = (
            replace(shapes, classifier=nn.Linear(shapes.embedding, shapes.classes).requires_grad_(False)) for shapes in (student, teacher)
        )
    teacher = with_random_embeddings(teacher, seed)
    with global_stream(seed, "build"):
        module = method.build(student, teacher, DataFacts(SAMPLES, CLASSES, targets))
    if fault := fault_of_module(module):
        raise Fault(fault)
    random = generator(seed, "outputs")

    def draw_outputs(shapes: Shapes) -> dict[Need, Any]:
        def draw(*shape: int, factor: float = 1.0) -> Tensor:
            return (torch.randn(*shape, generator=random) * factor).to(dtype).requires_grad_()

        logits = draw(batch, shapes.classes, factor=scale)
        return {
            Need.LOGITS: logits,
            Need.MEMBERS: [logits, logits],
            Need.EMBEDDING: draw(batch, shapes.embedding),
            Need.STAGES: [draw(batch, s.channels, s.height, s.width) for s in shapes.stages],
            Need.PREACT: [draw(batch, s.channels, s.height, s.width) for s in shapes.stages],
            Need.DISTILLED: draw(batch, shapes.classes, factor=scale),
            Need.CLASSIFIER: copy.deepcopy(cast(nn.Module, shapes.classifier)).to(dtype),
        }

    def other_passes(shapes: Shapes, owner: str) -> dict[Pass, Outputs]:
        return {which: Outputs.of(draw_outputs(shapes), owner=f"{owner}'s {which.name}") for which in Pass if which is not Pass.FIRST}

    ours, our_passes = draw_outputs(student), other_passes(student, "student")
    theirs, their_passes = draw_outputs(teacher), other_passes(teacher, "teacher")
    return Case(method, module.train(), ours, theirs, our_passes, their_passes)


def backward(trial: Case) -> Tensor:
    loss = trial.loss()
    if not loss.requires_grad:
        raise Fault("the loss carries no gradient: is the student detached (.detach(), torch.no_grad(), .argmax())?")
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


def tensors_of(value: Any) -> list[Tensor]:
    return list(value) if isinstance(value, list) else [value]
