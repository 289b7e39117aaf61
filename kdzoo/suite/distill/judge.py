"""The student with the teacher, the student alone and the teacher beside each other, on images that trained none of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from kdzoo.data.dataset import Dataset
from kdzoo.models.network import Network
from kdzoo.models.predict import predict
from kdzoo.runs.predictions import read_predictions
from kdzoo.suite.distill.page import HeldOut
from kdzoo.suite.distill.plan import planned_run
from kdzoo.suite.distill.verdict import BATCHES, Measured, Verdict
from kdzoo.suite.report.intervals import mcnemar_p, paired_difference, wilson
from kdzoo.suite.run.prepare import Prepared
from kdzoo.training.latency import machine_load, milliseconds
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_data import input_shape, load_run_data
from kdzoo.training.run_networks import load_network


def judge(prepared: Prepared, method: str, notes: tuple[str, ...], modules: Modules) -> Verdict:
    """The three networks beside each other, from the results of their runs and from latencies measured now."""
    distilled, alone = located_run(prepared, method), located_run(prepared, "none")
    device = torch.device(prepared.options.device)
    torch.set_num_threads(prepared.options.threads)
    images, _ = load_run_data(distilled, prepared.options.image_cache)
    shape = input_shape(images, distilled.run.recipe)
    student_network, _ = trained_student(distilled, modules, prepared)
    assert distilled.run.teacher is not None
    teacher_network = load_network(
        distilled.run.teacher, images, side=shape[1], seed=0, path=distilled.paths.get("teacher"), modules=modules
    )
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


def held_out(prepared: Prepared, verdict: Verdict, modules: Modules) -> list[HeldOut]:
    """The images that trained no network, with what the delivered student and its teacher say of them."""
    kept, taught = kept_run(prepared, verdict), located_run(prepared, verdict.method)
    dataset, splits = load_run_data(kept, prepared.options.image_cache)
    augment, device = taught.run.recipe.augment, torch.device(prepared.options.device)
    assert taught.run.teacher is not None
    side = input_shape(dataset, taught.run.recipe)[1]
    teacher = load_network(taught.run.teacher, dataset, side=side, seed=0, path=taught.paths.get("teacher"), modules=modules).to(device)
    parts = []
    for name, part in (("val", splits.val), ("test", splits.test)):
        if part is not None:
            kept_predictions = read_predictions(kept.folder.predictions, kept.run.id, part=name, classes=kept.run.data.classes)
            student = torch.from_numpy(kept_predictions.log_probs)
            parts.append(HeldOut(part, student, predict(teacher, part, augment, device, splits.task)))
    return parts


def kept_run(prepared: Prepared, verdict: Verdict) -> LocatedRun:
    """The run whose student is delivered."""
    return located_run(prepared, verdict.method if verdict.kept == "distilled" else "none")


def _right(located: LocatedRun, last: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of the held-out images a run's student names right, those of validation and of test together."""
    found = []
    for part in ("val", "test"):
        if last[part] is not None:
            predictions = read_predictions(located.folder.predictions, located.run.id, part=part, classes=located.run.data.classes)
            found.append(predictions.log_probs.argmax(1) == predictions.targets)
    return np.concatenate(found)


def _measured(network: Mapping[str, Any], parts: Mapping[str, Any], times: Mapping[int, float]) -> Measured:
    """One network on validation and test images together."""
    held_out = [parts[part] for part in ("val", "test") if parts[part] is not None]
    count = sum(part["n"] for part in held_out)
    right = sum(round(part["top1"] * part["n"]) for part in held_out)
    balanced = sum(part["balanced"] * part["n"] for part in held_out) / count
    return Measured(network["name"], right / count, *wilson(right, count), balanced, network["parameters"], network["macs"], times)


def located_run(prepared: Prepared, method: str) -> LocatedRun:
    """The run of a method in its bench."""
    return LocatedRun.read(prepared.plan.store.run(planned_run(prepared, method).run.id))


def trained_student(located: LocatedRun, modules: Modules, prepared: Prepared) -> tuple[Network, Dataset]:
    """The trained student of a run."""
    dataset, _ = load_run_data(located, prepared.options.image_cache)
    spec = located.run.student.model_copy(update={"start": f"run:{located.run.id}"})
    side = input_shape(dataset, located.run.recipe)[1]
    return load_network(spec, dataset, side=side, seed=0, path=str(located.folder.student), modules=modules), dataset
