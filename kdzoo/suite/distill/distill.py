"""The short way: a large network, a folder of images, one method and recipe; at the end a small network and a verdict."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from kdzoo.contract.methods import REGISTRY
from kdzoo.data.canonical import Raw
from kdzoo.data.dataset import Images
from kdzoo.data.labels import map_labels
from kdzoo.data.sources import register_source
from kdzoo.data.split import split
from kdzoo.errors import InputError, WorkFailed
from kdzoo.models.identity import module_name
from kdzoo.models.network import Network, freeze
from kdzoo.models.request import pretrained_unless_said
from kdzoo.runs.events import Emit, Event, Note, emit_notes
from kdzoo.runs.options import Execution
from kdzoo.runs.predictions import read_predictions
from kdzoo.runs.seals import OWNER
from kdzoo.runs.spec import Run
from kdzoo.runs.store import cache_folder, writable, write_json
from kdzoo.suite.distill.delivery import deliver
from kdzoo.suite.distill.image_size import ImageSize, choose_size
from kdzoo.suite.distill.verdict import BATCHES, Measured, Verdict, conclusion, table
from kdzoo.suite.plan.config import DISTILL_METHOD, DISTILL_RECIPE, DISTILL_STUDENT
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.plan.planned import Planned
from kdzoo.suite.plan.recipe_files import recipe_file
from kdzoo.suite.plan.requests import parse_request
from kdzoo.suite.report.intervals import mcnemar_p, paired_difference, wilson
from kdzoo.suite.run.bench import run as run_bench
from kdzoo.suite.run.display import open_display
from kdzoo.suite.run.launchers import LauncherSetup, create_launcher
from kdzoo.suite.run.prepare import Prepared, configure, prepare
from kdzoo.training.latency import machine_load, milliseconds
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_data import data_of, images_of, shape_of
from kdzoo.training.run_networks import network_of

FOLDER = "folder:"


@dataclass(frozen=True)
class Distilled:
    """What `kdzoo.distill` returns: the trained student in evaluation mode, and how it compares."""

    student: nn.Module
    accuracy: float
    baseline: float
    teacher_accuracy: float
    verdict: Verdict


@dataclass(frozen=True)
class Wish:
    """What a distillation is asked for, from the command line and from Python alike; None leaves an option at its default.

    results, name: its bench is the folder `name` in `results`.
    """

    data: str
    teacher: str
    results: Path
    student: str = DISTILL_STUDENT
    name: str = "runs"
    method: str = DISTILL_METHOD
    recipe: str = DISTILL_RECIPE
    epochs: int | None = None
    lr: float | None = None
    image_size: int | None = None
    seed: int = 0
    execution: Mapping[str, Any] = field(default_factory=dict)
    """how it is executed: keys of a bench such as device and threads, with their values"""
    skip_unreadable: bool = False

    def options(self, teacher: str, image_size: int | None) -> dict[str, Any]:
        """The options of the bench that trains it, with the teacher as a request and the side of the images that the networks see."""
        given = {"epochs": self.epochs, "lr": self.lr}
        return {
            "name": self.name,
            "results": str(self.results),
            "data": self.data,
            "teacher": teacher,
            "student": self.student,
            "methods": [self.method],
            "recipe": self.recipe,
            "seeds": [self.seed],
            "refit": False,
            "fine_tune": True,
            **self.execution,
            "jobs": 1,
            "keep": ["student", "predictions"],
            "skip_unreadable": self.skip_unreadable,
            **{key: value for key, value in given.items() if value is not None},
            "set": {} if image_size is None else {"recipe.augment.size": image_size},
        }


def distill_folder(wish: Wish, handle: Emit | None = None) -> Verdict:
    """Distil a teacher into a student on a folder's images; leave weights, classes, verdict and README in `wish.results`.

    A bare name of a teacher means its pretrained weights where there are any; one made for other classes is fine-tuned on
    these first. The student is trained twice with the same seed and batches, with the teacher and alone, so that the verdict
    is fair. Run the same call again to resume. Raises InputError before any work for what cannot be done, and WorkFailed
    where a run fails.
    """
    tell = handle or (lambda event: None)
    prepared, found = plan_distillation(wish, Modules())
    writable(wish.results)
    notes: list[str] = []
    listen = partial(_note, notes, tell)
    emit_notes(found, listen)
    with create_launcher(LauncherSetup(cache_folder() / "logs" / "distill", device=wish.execution.get("device", "auto"))) as launcher:
        outcome = run_bench(prepared, launcher, listen, retry_failed=True)
    _refuse_failed(outcome)
    verdict = judge(prepared, wish.method, tuple(dict.fromkeys(notes)), Modules())
    leave(wish.results, prepared, verdict)
    return verdict


def leave(out: Path, prepared: Prepared, verdict: Verdict) -> None:
    """Write what a distillation delivers into a folder: weights, classes, the code that reads images, README and verdict."""
    bound = _bound(prepared, verdict.method)
    network, images = _network(bound, Modules(), prepared)
    about = {"architecture": bound.run.student.name, "classes": str(len(images.classes)), OWNER: bound.run.id}
    words = "\n".join([*("    " + line for line in table(verdict)), "", conclusion(verdict)])
    metadata = {**about, "class_names": json.dumps(images.classes)}
    deliver(out, network, bound.run.student, images, bound.run.recipe, verdict=words, metadata=metadata)
    write_json(out / "verdict.json", json.loads(json.dumps(asdict(verdict))))


def distill(
    student: str | nn.Module,
    teacher: str | nn.Module,
    data: str | Path | tuple[tuple[Any, Any], tuple[Any, Any]],
    *,
    out: str | Path | None = None,
    method: str = DISTILL_METHOD,
    recipe: str = DISTILL_RECIPE,
    epochs: int | None = None,
    lr: float | None = None,
    image_size: int | None = None,
    seed: int = 0,
    results: str | Path | None = None,
    execution: Execution | None = None,
    skip_unreadable: bool = False,
    progress: bool = True,
) -> Distilled:
    """Train a student under a teacher and return it, with the same student trained alone to compare with.

    student, teacher: names in the words of the command line (`kdzoo distill --help`), or modules; a teacher's module is
    used as it is, and must score the classes of the data. data: a folder of images, a data set's name, or
    ((images, labels), (images, labels)) of train and test with images (N, H, W[, C]) or (N, C, H, W) uint8 and labels that
    are numbers or names. out: where to leave what the command line leaves in its folder: weights, classes, README, verdict
    and runs; for a folder of images and a student by name. method, recipe and image size are by default those of the
    command line. results: the folder of the runs; None for `out`, or else `results`. Trains in this process, through the
    same trainer as a bench; the same call again trains nothing. execution: how it is executed, as
    `kdzoo.Execution(device="cuda")`; without `threads` it takes as many as torch has (`torch.get_num_threads`, which
    OMP_NUM_THREADS sets), and torch's number is restored afterwards. progress: whether what is
    trained is shown as a bench shows it. The notes on data and networks are in `verdict.notes`.
    Raises InputError before any work, and WorkFailed where a run fails.
    """
    name = _data_name(data)
    if out is not None and (isinstance(student, nn.Module) or not name.startswith(FOLDER)):
        raise InputError(
            "out: expected a folder of images as data and the name of a network as student: the README that is left there is code "
            "that reads image files and creates the network; without `out` the trained network is returned alone"
        )
    modules = Modules({module_name(m): m for m in (student, teacher) if isinstance(m, nn.Module)})
    options = {"threads": torch.get_num_threads(), **(execution.explicit() if execution is not None else {})}
    runs, place = ("distill", Path("results")) if out is None else ("runs", Path(out))
    wish = Wish(
        data=name,
        teacher=module_name(teacher) if isinstance(teacher, nn.Module) else teacher,
        student=module_name(student) if isinstance(student, nn.Module) else student,
        results=place if results is None else Path(results),
        name=runs,
        method=method,
        recipe=recipe,
        epochs=epochs,
        lr=lr,
        image_size=image_size,
        seed=seed,
        execution=options,
        skip_unreadable=skip_unreadable,
    )
    prepared, found = plan_distillation(wish, modules)
    if out is not None:
        writable(Path(out))
    notes: list[str] = []
    before = torch.get_num_threads()
    setup = LauncherSetup(cache_folder() / "logs" / "distill", device=str(options.get("device", "auto")), modules=modules)
    try:
        with open_display(Console(quiet=not progress)) as display, create_launcher(setup, "here") as launcher:
            listen = partial(_note, notes, display.handle)
            emit_notes(found, listen)
            outcome = run_bench(prepared, launcher, listen, retry_failed=True, modules=modules)
        _refuse_failed(outcome)
        verdict = judge(prepared, method, tuple(dict.fromkeys(notes)), modules)
        trained, _ = _network(_bound(prepared, method), modules, prepared)
        if out is not None:
            leave(Path(out), prepared, verdict)
    finally:
        torch.set_num_threads(before)
    return Distilled(trained.model.eval(), verdict.distilled.accuracy, verdict.alone.accuracy, verdict.teacher.accuracy, verdict)


def plan_distillation(wish: Wish, modules: Modules) -> tuple[Prepared, tuple[str, ...]]:
    """The two runs of a distillation and the teacher's, ready to be trained, and the notes on image size, normalisation and teacher.

    Raises InputError with everything that is wrong.
    """
    _refuse_shipped(wish.method)
    teacher = wish.teacher if wish.teacher in modules.by_name else pretrained_unless_said(wish.teacher)
    size = wish.image_size
    notes: list[str] = []
    if size is None and not wish.data.startswith(FOLDER):
        size = _own_size(wish)
    prepared = _prepared(wish, teacher, size, modules)
    usual = _distilled(prepared, wish.method).run.recipe.augment.size
    chosen = chosen_size(prepared, modules, size) if wish.data.startswith(FOLDER) else None
    if size is None:
        notes.append(str(chosen) if chosen is not None else f"image size {usual}, that of the recipe")
    if chosen is not None and chosen.norm is not None and wish.teacher not in modules.by_name:
        notes.append(
            f"the file of {wish.teacher} does not say how its images were normalised: @norm={chosen.norm}, timm's for this network"
        )
        teacher = f"{teacher}@norm={chosen.norm}"
        prepared = _prepared(wish, teacher, chosen.side, modules)
    elif chosen is not None and chosen.side != usual:
        prepared = _prepared(wish, teacher, chosen.side, modules)
    return prepared, (*notes, *fine_tuned(prepared, wish.teacher))


def _prepared(wish: Wish, teacher: str, size: int | None, modules: Modules) -> Prepared:
    """The bench of a wish, without the controls that a distillation does not show."""
    prepared = prepare(configure(wish.options(teacher, size), modules=modules), modules)
    labels = {"none", _label(wish.method)}
    students = tuple(planned for planned in prepared.plan.students if planned.run.objective.label in labels)
    return replace(prepared, plan=replace(prepared.plan, students=students))


def _own_size(wish: Wish) -> int | None:
    """The side of a data set's own images, where a recipe has a larger one; None to leave the recipe's."""
    own = recipe_file(wish.recipe).recipe.get("augment", {}).get("size")
    if own is None:
        return None
    images = images_of(wish.data, None, None)
    return min(images.height, images.width, own) if min(images.height, images.width) < own else None


def chosen_size(prepared: Prepared, modules: Modules, given: int | None) -> ImageSize | None:
    """The image size for a folder, measured with the teacher's weights on its training images; None where that is not possible.

    given: the only size that may be chosen, where a user names one; the teacher's normalisation is measured all the same.
    """
    sides = sorted(recipe_file(prepared.config.recipe).sizes) if given is None else [given]
    planned = next(one for one in prepared.plan.students if one.run.teacher is not None)
    trained = next(iter(prepared.plan.teachers.values()), None)
    spec = planned.run.teacher if trained is None else trained.run.student
    path = planned.about["paths"].get("teacher") if trained is None else trained.about["paths"].get("student")
    if not sides or spec is None or spec.start == "random" or (given is not None and spec.norm is not None):
        return None
    config = prepared.config
    images = images_of(config.data, config.data_root, sides[-1], config.image_cache, config.skip_unreadable)

    def network_at(side: int) -> Network:
        return freeze(network_of(spec, images, side=side, seed=0, path=path, modules=modules, head="fresh"))

    return choose_size(network_at, spec.name, split(images, planned.run.data).train, sides)


def _note(notes: list[str], further: Emit, event: Event) -> None:
    """Pass an event on, and keep the text of a note."""
    if isinstance(event, Note):
        notes.append(event.text)
    further(event)


def _data_name(data: str | Path | tuple[tuple[Any, Any], tuple[Any, Any]]) -> str:
    """The name of a data set; arrays are registered under a name of their content.

    Raises InputError for arrays that are not images, and labels that do not name classes (`labels.map_labels`).
    """
    if isinstance(data, tuple):
        train, test = ((_pixels(images), labels) for images, labels in data)
        labels = map_labels(train[1], test[1])
        digest = hashlib.blake2b(digest_size=6)
        for images, numbers in ((train[0], labels.train), (test[0], labels.test)):
            digest.update(images.tobytes() + numbers.tobytes())
        if labels.classes != tuple(map(str, range(len(labels.classes)))):
            digest.update(repr(labels.classes).encode())
        name = f"arrays-{digest.hexdigest()}"
        register_source(name, lambda: Raw(train, test), "arrays given from Python")
        return name
    if isinstance(data, Path) or Path(data).is_dir():
        return f"{FOLDER}{data}"
    return data


def _pixels(images: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Images as (N, H, W[, C]) uint8."""
    array = images.cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    if array.dtype != np.uint8:
        raise InputError(f"data: expected uint8 images in 0..255, got {array.dtype}")
    channels_first = array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3)
    return array.transpose(0, 2, 3, 1) if channels_first else array


def fine_tuned(prepared: Prepared, teacher: str) -> tuple[str, ...]:
    """A note for each teacher that has to be trained before it teaches."""
    trained = [planned.run for planned in prepared.plan.teachers.values()]
    return tuple(f"the teacher {teacher} {_training_in_words(run)}; kept as {run.id}" for run in trained)


def _training_in_words(run: Run) -> str:
    epochs = f"{run.recipe.epochs} epoch{'' if run.recipe.epochs == 1 else 's'}"
    if run.student.start == "random":
        return f"starts at random and is trained on these images first ({epochs})"
    if run.recipe.learns == "head":
        return "was made for other classes and gets a classifier for these first, a regression on its frozen features"
    return f"was made for other classes and is fine-tuned on these images first ({epochs})"


def judge(prepared: Prepared, method: str, notes: tuple[str, ...], modules: Modules) -> Verdict:
    """The three networks beside each other, from the results of their runs and from latencies measured now."""
    distilled, alone = _bound(prepared, method), _bound(prepared, "none")
    device = torch.device(prepared.options.device)
    torch.set_num_threads(prepared.options.threads)
    images, _ = data_of(distilled, prepared.options.image_cache)
    shape = shape_of(images, distilled.run.recipe)
    student_network, _ = _network(distilled, modules, prepared)
    assert distilled.run.teacher is not None
    teacher_network = network_of(distilled.run.teacher, images, side=shape[1], seed=0, path=distilled.paths.get("teacher"), modules=modules)
    student_times = {batch: milliseconds(student_network, shape, batch, device) for batch in BATCHES}
    teacher_times = {batch: milliseconds(teacher_network, shape, batch, device) for batch in BATCHES}
    result, of_alone = distilled.folder.result(), alone.folder.result()["last"]
    right, right_alone = _right(distilled, result["last"]), _right(alone, of_alone)
    validation = result["last"]["val"]
    only_distilled, only_alone = int((right & ~right_alone).sum()), int((right_alone & ~right).sum())
    both = int((right & right_alone).sum())
    low, high = paired_difference(both, only_distilled, only_alone, len(right) - both - only_distilled - only_alone)
    return Verdict(
        distilled=_measured(result["student"], result["last"], student_times),
        alone=_measured(result["student"], of_alone, student_times),
        teacher=_measured(result["teacher"], result["teacher"], teacher_times),
        classes=images.classes,
        images=len(right),
        validation_images=0 if validation is None else validation["n"],
        only_distilled=only_distilled,
        only_alone=only_alone,
        difference_low=low,
        difference_high=high,
        p=mcnemar_p(right, right_alone),
        method=method,
        threads=prepared.options.threads,
        device=prepared.options.device,
        load=str(machine_load() or "load not known"),
        notes=(*(f"data: {note}" for note in images.notes), *notes),
    )


def _right(bound: LocatedRun, last: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of the held-out images a run's student names right, those of validation and of test together."""
    found = []
    for part in ("val", "test"):
        if last[part] is not None:
            predictions = read_predictions(bound.folder.predictions, bound.run.id, part=part, classes=bound.run.data.classes)
            found.append(predictions.log_probs.argmax(1) == predictions.targets)
    return np.concatenate(found)


def _measured(network: Mapping[str, Any], parts: Mapping[str, Any], times: Mapping[int, float]) -> Measured:
    """One network on validation and test images together."""
    held_out = [parts[part] for part in ("val", "test") if parts[part] is not None]
    count = sum(part["n"] for part in held_out)
    right = sum(round(part["top1"] * part["n"]) for part in held_out)
    balanced = sum(part["balanced"] * part["n"] for part in held_out) / count
    return Measured(network["name"], right / count, *wilson(right, count), balanced, network["parameters"], network["macs"], times)


def _refuse_failed(outcome: Outcome) -> None:
    """Raise WorkFailed with every run that failed."""
    if outcome.failed:
        raise WorkFailed("\n".join(f"{run_id} failed: {reason}" for run_id, reason in outcome.failed.items()))


def _refuse_shipped(method: str) -> None:
    """Raise InputError for a method whose student plain timm cannot load."""
    ships = {name: REGISTRY.get(name).card.deploys for name in parse_request(method).terms}
    found = [
        f"method: {name} ships {words}, which plain timm does not load; `kdzoo bench` trains it" for name, words in ships.items() if words
    ]
    if found:
        raise InputError(*found)


def _label(method: str) -> str:
    """The label of the runs of a method or a sum of methods."""
    return "+".join(sorted(parse_request(method).terms)) or "none"


def _distilled(prepared: Prepared, method: str) -> Planned:
    """The planned run of a method."""
    (found,) = [planned for planned in prepared.plan.students if planned.run.objective.label == _label(method)]
    return found


def _bound(prepared: Prepared, method: str) -> LocatedRun:
    """The run of a method in its bench."""
    return LocatedRun.read(prepared.plan.store.run(_distilled(prepared, method).run.id))


def _network(bound: LocatedRun, modules: Modules, prepared: Prepared) -> tuple[Network, Images]:
    """The trained student of a run."""
    images, _ = data_of(bound, prepared.options.image_cache)
    spec = bound.run.student.model_copy(update={"start": f"run:{bound.run.id}"})
    side = shape_of(images, bound.run.recipe)[1]
    return network_of(spec, images, side=side, seed=0, path=str(bound.folder.student), modules=modules), images
