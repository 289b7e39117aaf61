"""The two students and the teacher of a distillation with their predictions on the images that judge them, after training or cut short."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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
from kdzoo.suite.run.untrained import bind
from kdzoo.training.checkpoint import read_checkpoint
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_data import input_shape, load_run_data
from kdzoo.training.run_networks import load_network
from kdzoo.training.run_student import student_network


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

    def move_to_cpu(self) -> None:
        """Move the networks to the CPU, on which they are exported and returned."""
        for network in (self.distilled.network, self.alone.network, self.teacher):
            network.cpu()

    def kept(self, verdict: Verdict) -> TrainedStudent:
        """The student that a verdict delivers."""
        return self.distilled if verdict.kept == "distilled" else self.alone

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image as the networks take it, (C, H, W)."""
        return input_shape(self.dataset, self.distilled.located.run.recipe)


@dataclass(frozen=True)
class BestSoFar:
    """The epoch that a run delivers if it ends now: its best on the validation images, with those weights; a finished run's last, which
    it has kept (weights: None)."""

    weights: Mapping[str, Tensor] | None
    epoch: int
    trained_epochs: int


def after_last_epoch(prepared: Prepared, method: str, modules: Modules) -> Trained:
    """Both students after the last epoch of finished runs, judged by validation and test images."""
    distilled, alone = located_run(prepared, method), located_run(prepared, "none")
    dataset, splits = load_run_data(distilled, prepared.options.image_cache)
    parts = {name: part for name, part in (("val", splits.val), ("test", splits.test)) if part is not None}
    students = [finished_student(one, dataset, parts, modules) for one in (distilled, alone)]
    return _with_teacher(prepared, students, dataset, splits, parts, modules, None)


def at_best_epoch(prepared: Prepared, method: str, modules: Modules) -> Trained:
    """Both students with the weights of their best epoch on the validation images so far, judged by test images alone.

    The weights are those of checkpoints; a student that has finished is that of its last epoch. Raises WorkFailed where one has no
    weights yet: no epoch has ended, or there are no validation images.
    """
    located = located_run(prepared, method), located_run(prepared, "none")
    dataset, splits = load_run_data(located[0], prepared.options.image_cache)
    device, parts = torch.device(prepared.options.device), {"test": splits.test}
    recipe = located[0].run.recipe
    found = [best_so_far(one, splits) for one in located]

    def student(one: LocatedRun, best: BestSoFar) -> TrainedStudent:
        if best.weights is None:
            return finished_student(one, dataset, parts, modules)
        network = network_with(best.weights, one, dataset, modules)
        return TrainedStudent(one, network, {"test": predict(network.to(device), splits.test, recipe.augment, device, splits.task)})

    students = [student(one, best) for one, best in zip(located, found, strict=True)]
    cut_short = CutShort(
        distilled_epoch=found[0].epoch,
        alone_epoch=found[1].epoch,
        trained_epochs=min(best.trained_epochs for best in found),
        planned_epochs=recipe.epochs,
    )
    return _with_teacher(prepared, students, dataset, splits, parts, modules, cut_short)


def finished_student(located: LocatedRun, dataset: Dataset, parts: Iterable[str], modules: Modules) -> TrainedStudent:
    """The student of a finished run with its predictions for some parts of the data."""
    spec = located.run.student.model_copy(update={"start": f"run:{located.run.id}"})
    path = str(located.folder.student)
    network = load_network(spec, dataset, side=_side(dataset, located), seed=0, path=path, modules=modules).eval()
    classes = located.run.data.classes
    read = {name: read_predictions(located.folder.predictions, located.run.id, part=name, classes=classes) for name in parts}
    return TrainedStudent(located, network, {name: torch.from_numpy(one.log_probs) for name, one in read.items()})


def network_with(weights: Mapping[str, Tensor], located: LocatedRun, dataset: Dataset, modules: Modules) -> Network:
    """The student of a run that has not finished, in evaluation mode, with the weights of one of its epochs."""
    network = student_network(located, dataset, modules).eval()
    network.load_state_dict(weights)
    return network


def best_so_far(located: LocatedRun, splits: Splits) -> BestSoFar:
    """What a run on these images would deliver now. Raises WorkFailed where it has no weights yet."""
    recipe = located.run.recipe
    if located.folder.state() == "done":
        return BestSoFar(None, recipe.epochs, recipe.epochs)
    try:
        state = read_checkpoint(located.folder, torch.device("cpu"))
    except (FileNotFoundError, DamagedFile) as error:
        raise WorkFailed(OVER) from error
    if state["best"] is None:
        raise WorkFailed(OVER)
    steps = steps_per_epoch(len(splits.train.targets), recipe.batch_size, drop_last=recipe.drop_last)
    return BestSoFar(state["best"]["state"], state["best"]["epoch"], state["step"] // steps)


def _with_teacher(
    prepared: Prepared,
    students: Sequence[TrainedStudent],
    dataset: Dataset,
    splits: Splits,
    parts: Mapping[str, Subset],
    modules: Modules,
    cut_short: CutShort | None,
) -> Trained:
    distilled, alone = students
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
    """The run of a method in its bench, on the images where they are now."""
    return bind(planned_run(prepared, method), prepared.plan)
