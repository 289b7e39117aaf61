"""What cannot be true of a finished run, told by its own files, without training. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kdzoo.errors import InputError
from kdzoo.runs.metrics_file import read_whole
from kdzoo.runs.recipe import steps_per_epoch
from kdzoo.runs.seals import DamagedFile
from kdzoo.runs.store import RunFolder
from kdzoo.suite.report.records import Record, read_record
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.text import number_of

CLOSE = 1e-6
"""how far a number may be from what follows from others: some are computed in float32"""


def faults_of_folder(folder: RunFolder) -> list[str]:
    """What is wrong with a run's folder, a line each; empty where nothing is, or where the run is not done."""
    try:
        record = read_record(folder)
    except InputError as error:
        return [problem.removeprefix(f"{folder.path}/") for problem in error.problems]
    if record.state == "damaged":
        return [str(record.error)]
    return [] if record.result is None else [*faults_of_result(record, record.result), *_faults_of_files(record, record.result, folder)]


def faults_of_result(record: Record, result: Mapping[str, Any]) -> Iterator[str]:
    """What in a result contradicts its run or itself."""
    run, train = record.run, result["train"]
    expected = run.recipe.epochs * steps_per_epoch(train["samples"], run.recipe.batch_size, drop_last=run.recipe.drop_last)
    for place, value, right in (
        ("last.epoch", result["last"]["epoch"], run.recipe.epochs),
        ("train.steps", train["steps"], expected),
        ("student.name", result["student"]["name"], run.student.name),
        ("teacher.name", (result["teacher"] or {}).get("name"), run.teacher.name if run.teacher else None),
    ):
        if value != right:
            yield f"{place}: {value}, but its recipe and networks come to {right}"
    if (result["last"].get("val") is None) != (run.data.val_fraction == 0):
        yield f"last.val: {'missing' if run.data.val_fraction else 'there'}, but {100 * run.data.val_fraction:g} % are held out"
    for place, part in (("last", result["last"]), ("best", result["best"]), ("teacher", result["teacher"])):
        if part is not None and part.get("test") is not None:
            yield from _faults_of_metrics(f"{place}.test", part["test"])


def _faults_of_metrics(place: str, metrics: Mapping[str, Any]) -> Iterator[str]:
    """What in the metrics of one part contradicts its counts per class."""
    errors, images = metrics.get("errors_per_class"), metrics.get("images_per_class")
    if not errors or not images:
        return
    shares = metrics.get("accuracy_per_class") or []
    right = [None if count == 0 else 1 - wrong / count for wrong, count in zip(errors, images, strict=True)]
    shares_of_present = [share for share in right if share is not None]
    for name, value, expected in (
        ("n", metrics["n"], sum(images)),
        ("top1", metrics.get("top1"), 1 - sum(errors) / max(sum(images), 1)),
        ("balanced", metrics.get("balanced"), sum(shares_of_present) / max(len(shares_of_present), 1)),
        *((f"accuracy_per_class[{at}]", share, one) for at, (share, one) in enumerate(zip(shares, right, strict=False))),
    ):
        if value is not None and expected is not None and not math.isclose(value, expected, abs_tol=CLOSE):
            yield f"{place}.{name}: {value:g}, but its errors per class come to {expected:g}"


def _faults_of_files(record: Record, result: Mapping[str, Any], folder: RunFolder) -> Iterator[str]:
    """What in a result contradicts the files beside it, where these are there."""
    if folder.metrics.exists():
        yield from _faults_of_epochs(record, result, folder)
    if folder.predictions.exists() and record.task is CLASSIFICATION:
        yield from _faults_of_predictions(record, result, folder)


def _faults_of_epochs(record: Record, result: Mapping[str, Any], folder: RunFolder) -> Iterator[str]:
    whole = read_whole(folder.metrics, folder.id)
    if whole.unread or not whole.records:
        yield (
            f"metrics.jsonl: damaged: {number_of(len(whole.records), 'line')} readable; what follows is torn, changed since it was "
            "written, out of order or another run's"
        )
        return
    last = whole.records[-1]
    facts = [
        ("epoch", len(whole.records), record.run.recipe.epochs),
        ("step", last["step"], result["train"]["steps"]),
        ("loss", last.get("loss"), result["train"]["loss"]),
        ("val", last.get("val"), result["last"].get("val")),
    ]
    for name, in_file, in_result in facts:
        if _known(in_file, in_result) != _known(in_result, in_file):
            yield f"metrics.jsonl: {name} of its last line is not what result.json has"


def _known(value: Any, other: Any) -> Any:
    """A value as far as the other has it: a metric of a later schema is not in earlier files."""
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        return {key: value[key] for key in sorted(value.keys() & other.keys())}
    return value


def _faults_of_predictions(record: Record, result: Mapping[str, Any], folder: RunFolder) -> Iterator[str]:
    """Whether kept predictions name the class as often as the result says."""
    from kdzoo.runs.predictions import read_predictions

    for part in ("test", "val"):
        metrics = result["last"].get(part)
        if metrics is None or metrics.get("top1") is None:
            continue
        try:
            rows = read_predictions(folder.predictions, folder.id, part=part, classes=record.run.data.classes)
        except DamagedFile as error:
            yield str(error).removeprefix(f"{folder.path}/")
            return
        labelled = rows.targets >= 0
        right = float((rows.log_probs.argmax(1) == rows.targets)[labelled].mean())
        if not math.isclose(right, metrics["top1"], abs_tol=CLOSE):
            yield f"last.{part}.top1: {metrics['top1']:g}, but its predictions come to {right:g}"


def copies(records: Iterable[Record]) -> dict[str, str]:
    """Runs whose numbers are those of another seed of the same setting, to the last bit: by id, what is wrong."""
    first: dict[tuple[Any, ...], str] = {}
    found: dict[str, str] = {}
    for record in records:
        if record.result is None:
            continue
        numbers = (record.result["last"]["test"].get("nll"), record.result["train"]["loss"])
        key = (record.setting_key, record.table_key, *numbers)
        if None not in numbers and first.setdefault(key, record.id) != record.id:
            found[record.id] = f"its loss and its negative log-likelihood are those of {first[key]} to the last bit: no two seeds agree so"
    return found
