"""The networks of finished runs, and what they predict, for steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.data.dataset import Dataset, Subset
from kdzoo.data.split import Splits
from kdzoo.errors import InputError
from kdzoo.models.predict import predict
from kdzoo.runs.store import RunFolder
from kdzoo.suite.study.steps.step import Work
from kdzoo.tasks.task import Task
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_data import input_shape, load_run_data
from kdzoo.training.run_networks import load_network
from kdzoo.training.run_student import load_trained_student


@dataclass(frozen=True)
class Finished:
    """A finished run with its data and its student as it was measured after the last epoch."""

    located: LocatedRun
    dataset: Dataset
    splits: Splits
    student: nn.Module
    device: torch.device

    def predict(self, subset: Subset) -> Tensor:
        """Log-probabilities (N, K) of the student."""
        return self._ask(self.student, subset)

    def ask_teacher(self, subset: Subset) -> Tensor:
        """Log-probabilities (N, K) of the teacher; raises InputError where the run has none."""
        run = self.located.run
        if run.teacher is None:
            raise InputError(f"{run.id}: learned from no teacher, which could label images")
        side, path = input_shape(self.dataset, run.recipe)[1], self.located.paths.get("teacher")
        return self._ask(load_network(run.teacher, self.dataset, side=side, seed=0, path=path, modules=Modules()), subset)

    def _ask(self, network: nn.Module, subset: Subset) -> Tensor:
        return predict(network.to(self.device), subset, self.located.run.recipe.augment, self.device)

    @property
    def training(self) -> Subset:
        """The images that the student was taught on with their labels."""
        known = (self.splits.train.targets >= 0).nonzero().flatten()
        if not len(known):
            raise InputError(f"{self.located.run.id}: its student was taught on no labelled image")
        return _some(self.splits.train, known)

    @property
    def all_training(self) -> Subset:
        """The training images of all classes, whatever the transfer set; none that is held out."""
        places = self.splits.of_teacher
        return self.splits.train if places is None else _some(self.splits.all_train, places)


def _some(subset: Subset, index: Tensor) -> Subset:
    if len(index) == len(subset.targets):
        return subset
    return Subset(subset.images[index.to(subset.images.device)], subset.targets[index])


def finished(folder: RunFolder, work: Work) -> Finished:
    """A finished run from its folder; raises InputError where its data or weights are not those it was trained with."""
    located = LocatedRun.read(folder)
    if work.data_root is not None:
        located = replace(located, paths={**located.paths, "data_root": work.data_root})
    dataset, splits = load_run_data(located)
    return Finished(located, dataset, splits, load_trained_student(located, dataset, splits, Modules()), torch.device(work.device))


def metrics(task: Task, predictions: Tensor, targets: Tensor) -> dict[str, Any]:
    """Every metric of (N, K) predictions, with the errors per class, as a run's result.json has them."""
    return {**task.measure(predictions, targets), **task.by_class(predictions, targets)}
