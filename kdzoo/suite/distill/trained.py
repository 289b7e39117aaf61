"""The two students and the teacher of a distillation with their predictions on the images that judge them, after training or cut short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdzoo.data.dataset import Dataset, Subset
from kdzoo.data.split import Splits
from kdzoo.errors import WorkFailed
from kdzoo.models.network import Network
from kdzoo.models.predict import predict
from kdzoo.runs.predictions import read_predictions
from kdzoo.runs.recipe import steps_per_epoch
from kdzoo.runs.seals import DamagedFile
from kdzoo.suite.distill.plan import planned_run
from kdzoo.suite.distill.time_limit import OVER
from kdzoo.suite.distill.verdict import CutShort, Verdict
from kdzoo.suite.run.prepare import Prepared
from kdzoo.training.checkpoint import read_checkpoint
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_data import input_shape, load_run_data
from kdzoo.training.run_networks import load_network


@dataclass(frozen=True)
class TrainedStudent:
    """One of the two students. network: in evaluation mode; log_probs: (N, K) for each part of the data that judges."""

    located: LocatedRun
    network: Network
    log_probs: Mapping[str, Tensor]


@dataclass(frozen=True)
class Trained:
    """What a distillation has trained, on the data. parts: the images that judge, which trained and chose nothing.

    cut_short: where the time was over before training had ended, so that validation chose the students' epochs; else None.
    """

    distilled: TrainedStudent
    alone: TrainedStudent
    teacher: Network
    teacher_log_probs: Mapping[str, Tensor]
    dataset: Dataset
    splits: Splits
    parts: Mapping[str, Subset]
    cut_short: CutShort | None

    def kept(self, verdict: Verdict) -> TrainedStudent:
        """The student that a verdict delivers."""
        return self.distilled if verdict.kept == "distilled" else self.alone

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image as the networks take it, (C, H, W)."""
        return input_shape(self.dataset, self.distilled.located.run.recipe)


def after_last_epoch(prepared: Prepared, method: str, modules: Modules) -> Trained:
    """Both students after the last epoch of finished runs, judged by validation and test images."""
    distilled, alone = located_run(prepared, method), located_run(prepared, "none")
    dataset, splits = load_run_data(distilled, prepared.options.image_cache)
    parts = {name: part for name, part in (("val", splits.val), ("test", splits.test)) if part is not None}

    def student(located: LocatedRun) -> TrainedStudent:
        spec = located.run.student.model_copy(update={"start": f"run:{located.run.id}"})
        network = load_network(
            spec, dataset, side=_side(dataset, located), seed=0, path=str(located.folder.student), modules=modules
        ).eval()
        read = {
            name: read_predictions(located.folder.predictions, located.run.id, part=name, classes=located.run.data.classes)
            for name in parts
        }
        return TrainedStudent(located, network, {name: torch.from_numpy(one.log_probs) for name, one in read.items()})

    return _with_teacher(prepared, student(distilled), student(alone), dataset, splits, parts, modules, None)


def at_best_epoch(prepared: Prepared, method: str, modules: Modules) -> Trained:
    """Both students with the weights of their best epoch on the validation images so far, from checkpoints; judged by test images alone.

    Raises WorkFailed where a run has none: no epoch has ended, or there are no validation images.
    """
    located = located_run(prepared, method), located_run(prepared, "none")
    states = tuple(_checkpoint(one) for one in located)
    dataset, splits = load_run_data(located[0], prepared.options.image_cache)
    augment = located[0].run.recipe.augment
    device = torch.device(prepared.options.device)

    def student(one: LocatedRun, state: Mapping[str, Any]) -> TrainedStudent:
        network = load_network(
            one.run.student, dataset, side=_side(dataset, one), seed=0, path=one.paths.get("student"), modules=modules, head="fresh"
        ).eval()
        network.load_state_dict(state["best"]["state"])
        return TrainedStudent(one, network, {"test": predict(network.to(device), splits.test, augment, device, splits.task)})

    recipe = located[0].run.recipe
    steps = steps_per_epoch(len(splits.train.targets), recipe.batch_size, drop_last=recipe.drop_last)
    cut_short = CutShort(
        distilled_epoch=states[0]["best"]["epoch"],
        alone_epoch=states[1]["best"]["epoch"],
        trained_epochs=min(state["step"] for state in states) // steps,
        planned_epochs=recipe.epochs,
    )
    distilled, alone = (student(one, state) for one, state in zip(located, states, strict=True))
    return _with_teacher(prepared, distilled, alone, dataset, splits, {"test": splits.test}, modules, cut_short)


def _checkpoint(located: LocatedRun) -> Mapping[str, Any]:
    """The checkpoint of a run that has a best epoch; raises WorkFailed where it has none."""
    try:
        state = read_checkpoint(located.folder, torch.device("cpu"))
    except (FileNotFoundError, DamagedFile) as error:
        raise WorkFailed(OVER) from error
    if state["best"] is None:
        raise WorkFailed(OVER)
    return state


def _with_teacher(
    prepared: Prepared,
    distilled: TrainedStudent,
    alone: TrainedStudent,
    dataset: Dataset,
    splits: Splits,
    parts: Mapping[str, Subset],
    modules: Modules,
    cut_short: CutShort | None,
) -> Trained:
    run, paths = distilled.located.run, distilled.located.paths
    assert run.teacher is not None
    side = _side(dataset, distilled.located)
    device = torch.device(prepared.options.device)
    teacher = load_network(run.teacher, dataset, side=side, seed=0, path=paths.get("teacher"), modules=modules).to(device).eval()
    log_probs = {name: predict(teacher, part, run.recipe.augment, device, splits.task) for name, part in parts.items()}
    return Trained(distilled, alone, teacher, log_probs, dataset, splits, parts, cut_short)


def _side(dataset: Dataset, located: LocatedRun) -> int:
    return input_shape(dataset, located.run.recipe)[1]


def located_run(prepared: Prepared, method: str) -> LocatedRun:
    """The run of a method in its bench."""
    return LocatedRun.read(prepared.plan.store.run(planned_run(prepared, method).run.id))
