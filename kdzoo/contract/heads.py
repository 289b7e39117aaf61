"""Where a task learns several columns of targets: a method that reads scores or labels is computed for each column by itself.

A method that reads neither (maps, embeddings, their relations) is computed once, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from kdzoo.contract.batch import Batch
from kdzoo.contract.card import Card
from kdzoo.contract.needs import Need, Pass
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.tasks.multitask import slices_of
from kdzoo.tasks.task import Task

BY_COLUMN = Need.LOGITS | Need.MEMBERS | Need.DISTILLED | Need.CLASSIFIER | Need.TARGETS
"""what is of one column: a method that reads any of it is computed for each"""


@dataclass(frozen=True)
class Head:
    """A column of targets: its place, its weight, and which of each network's scores are its own; `teacher` is None where it has none."""

    column: str
    place: int
    weight: float
    student: slice
    teacher: slice | None

    def batch(self, batch: Batch) -> Batch:
        """The batch with the targets of the column alone."""
        return batch.of_column(self.place)

    def facts(self, facts: DataFacts) -> DataFacts:
        """What is known of the training data, with the targets and the classes of the column alone."""
        return replace(facts, targets=facts.targets[:, self.place], classes=self.student.stop - self.student.start)


def heads_of(task: Task, teacher_columns: Sequence[str] | None) -> tuple[Head, ...]:
    """The heads of a task of several columns; none of any other. teacher_columns: those that the teacher scores; None for all."""
    students = slices_of(task.several)
    own = [column for name in teacher_columns or students for column in task.several if column.name == name]
    teachers = slices_of(own)
    return tuple(
        Head(column.name, place, column.weight, students[column.name], teachers.get(column.name))
        for place, column in enumerate(task.several)
    )


def heads_for(card: Card, heads: Sequence[Head]) -> tuple[Head | None, ...]:
    """For which of the heads a method is computed: once, for None, where it reads nothing that is of one column."""
    needs = card.needs
    if not heads or not (needs.student.outputs | needs.teacher.outputs) & BY_COLUMN:
        return (None,)
    reads_scores = needs.teacher.outputs & BY_COLUMN
    return tuple(head for head in heads if head.teacher is not None or not reads_scores)


def fault_of_heads(card: Card, heads: Sequence[Head]) -> str:
    """Why a method cannot be computed where several columns are learned, in words; empty where it can."""
    needs = card.needs
    if not heads:
        return ""
    if Need.NETWORK in needs.student.outputs | needs.teacher.outputs:
        return "looks at a network's gradients or other inputs, and a network of several columns has no single set of scores"
    if Pass.PARTNER in needs.student.passes | needs.teacher.passes:
        return "pairs each sample with another of its class, and a sample has a class in each of several columns"
    if card.deploys or card.pretrain is not None:
        return (
            f"{'ships other parts than the student' if card.deploys else 'trains in two stages'}, which it does for one column of targets"
        )
    return ""


class OneColumn(nn.Module):
    """The scores of one column from a module that gives those of several."""

    def __init__(self, whole: nn.Module, part: slice) -> None:
        super().__init__()
        self.whole = whole
        self.part = part

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.whole(inputs)
        return scores[:, self.part]


def outputs_of_column(outputs: Outputs, part: slice | None) -> Outputs:
    """The same outputs with the scores of one column alone; as they are where the network has none of it."""
    if part is None:
        return outputs
    values = dict(outputs.items())
    for need in (Need.LOGITS, Need.DISTILLED):
        if values.get(need) is not None:
            values[need] = values[need][:, part]
    if values.get(Need.MEMBERS) is not None:
        values[Need.MEMBERS] = [scores[:, part] for scores in values[Need.MEMBERS]]
    if values.get(Need.CLASSIFIER) is not None:
        values[Need.CLASSIFIER] = OneColumn(values[Need.CLASSIFIER], part)
    own = outputs.with_values(values)
    for which, its in outputs.passes():
        own = own.with_pass(which, outputs_of_column(its, part))
    return own


def shapes_of_column(shapes: Shapes, part: slice | None) -> Shapes:
    """The same shapes with the classes of one column alone."""
    if part is None:
        return shapes
    classifier = None if shapes.classifier is None else OneColumn(shapes.classifier, part)
    fresh = None if shapes.fresh is None else partial(_peer_of_column, shapes.fresh, part)
    return replace(shapes, classes=part.stop - part.start, classifier=classifier, fresh=fresh)


def _peer_of_column(fresh: Callable[[], nn.Module], part: slice) -> nn.Module:
    return OneColumn(fresh(), part)
