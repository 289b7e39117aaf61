"""How alike a backbone and its teacher see images that trained neither of the two."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kdzoo.models.measure import network_cost
from kdzoo.models.network import freeze
from kdzoo.models.predict import predict
from kdzoo.suite.distill.backbone import Backbone
from kdzoo.suite.run.prepare import Prepared
from kdzoo.tasks.probes import QUERIES, neighbours_compared, neighbours_in_common
from kdzoo.training.located import Modules
from kdzoo.training.run_data import input_shape
from kdzoo.training.run_networks import load_network
from kdzoo.training.run_student import student_network


@dataclass(frozen=True)
class Likeness:
    """How alike a backbone and its teacher see images that trained neither of the two.

    before, after: the share of an image's nearest others that are the same by both, of the student as it started and as it ended;
    chance: of embeddings that have nothing to do with each other. images: how many were held out, of the first `queries` of which
    the nearest `neighbours` others are compared; width: of the student's embedding. epoch: of the student's weights, the last of
    `planned_epochs` or, where the time was over after `trained_epochs`, the best by the validation images.
    """

    student: str
    teacher: str
    method: str
    images: int
    queries: int
    neighbours: int
    before: float
    after: float
    chance: float
    student_parameters: int
    teacher_parameters: int
    width: int
    epoch: int
    trained_epochs: int
    planned_epochs: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        alike = "Of the image" if self.neighbours == 1 else f"Of the {self.neighbours} images"
        each = f"{self.images}" if self.queries == self.images else f"the first {self.queries} of {self.images}"
        return (
            f"{alike} most alike to each of {each} held-out ones, {self.student} and {self.teacher} share {self.after:.1%}; before "
            f"training it was {self.before:.1%}, and strangers would share {self.chance:.1%}. The student has "
            f"{self.student_parameters / self.teacher_parameters:.1%} of the teacher's parameters ({self.student_parameters / 1e6:.2f} M) "
            f"and embeddings of width {self.width}.{self._early_words()}"
        )

    def _early_words(self) -> str:
        if self.trained_epochs == self.planned_epochs:
            return ""
        return (
            f" The time was over after {self.trained_epochs} of {self.planned_epochs} epochs: the student is that of epoch {self.epoch}, "
            "the best by the validation images so far. The same command goes on."
        )


def measure_likeness(prepared: Prepared, backbone: Backbone, method: str, notes: tuple[str, ...]) -> Likeness:
    """How alike teacher and student are on the test images, at the end and as the student started."""
    located, student, best = backbone.located, backbone.student, backbone.best
    dataset, test, task = student.dataset, backbone.splits.test, backbone.splits.task
    spec, recipe, device = located.run.teacher, located.run.recipe, torch.device(prepared.options.device)
    assert spec is not None
    shape = input_shape(dataset, recipe)
    teacher = freeze(load_network(spec, dataset, side=shape[1], seed=0, path=located.paths.get("teacher"), modules=Modules()))
    theirs, start, end = (
        predict(network.to(device), test, recipe.augment, device, task)
        for network in (teacher, student_network(located, dataset, Modules()), student.body)
    )
    student.body.cpu()
    neighbours = neighbours_compared(len(theirs))
    return Likeness(
        student=located.run.student.name,
        teacher=spec.name,
        method=method,
        images=len(theirs),
        queries=min(QUERIES, len(theirs)),
        neighbours=neighbours,
        before=neighbours_in_common(start, theirs),
        after=neighbours_in_common(end, theirs),
        chance=neighbours / (len(theirs) - 1),
        student_parameters=network_cost(student.body, shape).parameters,
        teacher_parameters=network_cost(teacher.cpu(), shape).parameters,
        width=end.shape[1],
        epoch=best.epoch,
        trained_epochs=best.trained_epochs,
        planned_epochs=recipe.epochs,
        notes=(*(f"data: {note}" for note in dataset.notes), *notes),
    )
