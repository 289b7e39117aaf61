"""A teacher whose answers stand in a file: an API, an ensemble, or any model that cannot be shipped or run here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import torch
from torch import Tensor

from kdzoo.contract.needs import Need, NetworkNeeds, Pass
from kdzoo.contract.outputs import Outputs, with_passes
from kdzoo.contract.shapes import Shapes
from kdzoo.data.copies import send
from kdzoo.data.dataset import Subset
from kdzoo.data.epoch import EpochPlan, Inputs
from kdzoo.data.split import Splits
from kdzoo.data.views import view_count
from kdzoo.errors import InputError
from kdzoo.models.placement import Placement
from kdzoo.runs.recipe import Augment, Recipe
from kdzoo.tasks.multitask import for_teacher
from kdzoo.tasks.targets import is_labelled
from kdzoo.tasks.task import Task
from kdzoo.teachers.file import CENTRE, SavedFile
from kdzoo.teachers.teacher import Teacher

CHECK_IMAGES = 2000
"""training images on which a saved teacher is compared with chance"""


@dataclass(frozen=True)
class SavedAnswers:
    """The rows of a file for every pass, by position in an epoch's order."""

    file: SavedFile
    rows: Mapping[Pass, Tensor]
    needs: NetworkNeeds
    device: torch.device

    def at(self, positions: Tensor, inputs: Inputs) -> Outputs:
        return with_passes({which: self._read(self.rows[which][positions]) for which in self.needs.passes})

    def _read(self, rows: Tensor) -> Outputs:
        logits = send(self.file.logits(rows), self.device)
        outputs: dict[Need, Any] = {Need.LOGITS: logits, Need.MEMBERS: [logits]}
        if self.file.embedding is not None:
            outputs[Need.EMBEDDING] = send(self.file.embedding[rows], self.device)
        return Outputs.of(outputs, owner="saved teacher").restrict_to(self.needs.outputs)


@dataclass(frozen=True, kw_only=True)
class SavedTeacher(Teacher):
    """A file of answers. exact_views: whether it is read by the view that training shows, or by each image's centre view."""

    file: SavedFile
    exact_views: bool

    @property
    def offers(self) -> Need:
        return self.file.offers

    def open_epoch(self, plan: EpochPlan, needs: NetworkNeeds) -> SavedAnswers:
        return SavedAnswers(self.file, {which: self._rows(plan, which) for which in needs.passes}, needs, plan.device)

    def _rows(self, plan: EpochPlan, which: Pass) -> Tensor:
        keys = plan.splits.train.keys
        assert keys is not None
        views = plan.view_indices(which) if self.exact_views else None
        rows = self.file.find(keys[plan.samples_at(which)], CENTRE if views is None else views)
        if bool((rows < 0).any()):
            raise InputError(f"saved:{self.file.path}: has no row for {int((rows < 0).sum()):,} images of epoch {plan.epoch + 1}")
        return rows

    def check_predictions(self, splits: Splits, augment: Augment, execution: Placement) -> tuple[Tensor, Tensor]:
        places = is_labelled(splits.train.targets).nonzero().flatten()[:CHECK_IMAGES]
        assert splits.train.keys is not None
        rows = self.file.find(splits.train.keys[places])
        has_row = rows >= 0
        return self.task.predict(self.file.logits(rows[has_row])), splits.train.targets[places][has_row]

    def record(self) -> dict[str, Any]:
        return {**super().record(), "saved": {"k": self.file.k, "views": "exact" if self.exact_views else "centre"}}


def saved_teacher(file: SavedFile, splits: Splits, recipe: Recipe, columns: tuple[str, ...] | None = None) -> SavedTeacher:
    """The teacher that a file holds, with its predictions of the validation and test images where it has all of them.

    columns: which of several columns of targets it scores; None for all.
    """
    task = splits.task if columns is None else for_teacher(splits.task, columns)
    val, test = (None if part is None else _predictions(file, part, task) for part in (splits.val, splits.test))
    return SavedTeacher(
        name=file.name,
        identity=file.digest,
        weights_digest=file.digest,
        cost=None,
        val=val,
        test=test,
        val_metrics=None if val is None or splits.val is None else splits.task.measure(val, splits.val.targets),
        test_metrics=None if test is None else splits.task.measure(test, splits.test.targets),
        test_per_class={} if test is None else splits.task.by_class(test, splits.test.targets),
        notes=tuple(_notes(file, splits, val, test)),
        file=file,
        task=task,
        exact_views=file.has_views_of(recipe.augment),
    )


def _predictions(file: SavedFile, part: Subset, task: Task) -> Tensor | None:
    """The task's predictions (N, K) of a part of the data; None where the file lacks one of its images."""
    if part.keys is None:
        return None
    rows = file.find(part.keys)
    return None if bool((rows < 0).any()) else task.predict(file.logits(rows))


def _notes(file: SavedFile, splits: Splits, val: Tensor | None, test: Tensor | None) -> Iterable[str]:
    missing_names = [
        name
        for name, part, predictions in (("validation", splits.val, val), ("test", splits.test, test))
        if part is not None and predictions is None
    ]
    if missing_names:
        yield (
            f"teacher {file.name}: its file does not hold all {' and '.join(missing_names)} images: its own accuracy and the agreement "
            "with it are not measured there"
        )


def problems_of_saved(file: SavedFile, splits: Splits, recipe: Recipe, seed: int, needs: Mapping[str, NetworkNeeds]) -> list[str]:
    """What a file does not offer to a run, a sentence each. needs: what each method reads of the teacher."""
    problems = []
    for method, own in needs.items():
        if missing_names := [str(need.name).lower() for need in own.outputs & ~file.offers]:
            offers = "logits and embedding" if Need.EMBEDDING in file.offers else "logits"
            problems.append(
                f"{method}: reads {' and '.join(missing_names)} of the teacher, which the saved teacher {file.name} does not hold; it "
                f"offers {offers}"
            )
    if recipe.mixes:
        problems.append(f"recipe.mixup, recipe.cutmix: the saved teacher {file.name} has no answers for mixed images; remove them")
    keys = splits.train.keys
    assert keys is not None
    if file.has_views_of(recipe.augment):
        passes = reduce(or_, (own.passes for own in needs.values()), Pass.FIRST)
        samples, views = views_of_epochs(splits, recipe, seed, passes)
        missing, what = file.find(keys[samples], views) < 0, "views of training images that its epochs show"
    else:
        missing, what = file.find(keys) < 0, "training images"
    if count := int(missing.sum()):
        problems.append(
            f"saved:{file.path}: has no row for {count:,} of {len(missing):,} {what}; keys are those of "
            "this data set (docs/saved-teachers.md)"
        )
    return problems


def views_of_epochs(splits: Splits, recipe: Recipe, seed: int, passes: Pass) -> tuple[Tensor, Tensor]:
    """Every distinct (sample, view number) that the epochs of a run show, (M,) int64 each; views are padded crops and flips."""
    views = view_count(recipe.augment)
    assert views is not None
    is_shown = torch.zeros(len(splits.train.targets) * views, dtype=torch.bool)
    for epoch in range(recipe.drawn_epochs):
        plan = EpochPlan(splits, recipe, seed, epoch, passes)
        for which in passes:
            numbers = plan.view_indices(which)
            assert numbers is not None
            is_shown[plan.samples_at(which) * views + numbers] = True
    codes = is_shown.nonzero().flatten()
    return codes // views, codes % views


def shapes_of_saved(file: SavedFile) -> Shapes:
    """What its outputs measure: no stages, and an embedding of width 0 where there is none."""
    width = 0 if file.embedding is None else file.embedding.shape[1]
    return Shapes(classes=file.classes, embedding=width, stages=(), preact=False)
