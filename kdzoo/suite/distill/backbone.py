"""The student of a distillation without labels, after its last epoch or cut short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdzoo.data.split import Splits
from kdzoo.suite.distill.distill import refuse_unfinished
from kdzoo.suite.distill.trained import BestSoFar, best_so_far, located_run, network_with
from kdzoo.suite.export.student import Student, load_student, student_of
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.run.prepare import Prepared
from kdzoo.training.finish import student_metadata
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_data import load_run_data


@dataclass(frozen=True)
class Backbone:
    """A student without classes as it ships, where its training stands, and the images of its data."""

    student: Student
    located: LocatedRun
    best: BestSoFar
    splits: Splits


def trained_backbone(outcome: Outcome, prepared: Prepared, method: str, stop: Callable[[], bool]) -> Backbone:
    """What was trained: to the last epoch, or to the best one by the validation images where the time was over.

    Raises WorkFailed where the run failed, or where the time was over before an epoch had ended.
    """
    located, image_cache = located_run(prepared, method), prepared.options.image_cache
    if not (outcome.failed and stop() and located.folder.state() != "failed"):
        refuse_unfinished(outcome)
    if located.folder.state() == "done":
        student, splits = load_student(located, image_cache)
        return Backbone(student, located, best_so_far(located, splits), splits)
    dataset, splits = load_run_data(located, image_cache)
    best = best_so_far(located, splits)
    assert best.weights is not None, "a run that has not finished stands at a checkpoint"
    network = network_with(best.weights, located, dataset, Modules())
    return Backbone(student_of(located, network, dataset, student_metadata(located.folder)), located, best, splits)
