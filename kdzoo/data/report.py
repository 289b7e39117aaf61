"""A data set in a few facts: as a record beside a run, and as the first lines of a bench."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from kdzoo.data.dataset import Dataset
from kdzoo.data.split import Splits
from kdzoo.data.transfer import classes_in_words
from kdzoo.data.unlabelled import UnlabelledImages, in_common
from kdzoo.runs.spec import TransferSpec
from kdzoo.tasks.targets import is_labelled
from kdzoo.text import number_of

WIDTH = 80
LINES = 6


def data_record(dataset: Dataset, splits: Splits) -> dict[str, Any]:
    """A data set as JSON: how many images of which size in which part, where they came from, and every note."""
    val_from_train = dataset.val is None and splits.val is not None
    whole = sum(len(subset.targets) for subset in (dataset.train, dataset.val, dataset.test) if subset is not None)
    train = len(splits.train.targets if splits.of_teacher is None else splits.of_teacher)
    in_use = train + sum(len(subset.targets) for subset in (splits.val, splits.test) if subset is not None)
    return {
        "name": dataset.name,
        "source": dataset.source,
        "classes": len(dataset.classes),
        "shape": [dataset.channels, dataset.height, dataset.width],
        "train": train,
        "labelled": int(is_labelled(splits.train.targets).sum()),
        "validation": 0 if splits.val is None else len(splits.val.targets),
        "test": len(splits.test.targets),
        "unused": whole - in_use,
        "origins": {**dataset.origins, **({"val": "from train"} if val_from_train else {})},
        "notes": list(dataset.notes),
        **({"maps": True} if dataset.holds_maps else {}),
        **({"texts": True} if dataset.holds_texts else {}),
        **({} if dataset.task.of_classes else {"task": dataset.task.name}),
        **({"columns": {one.name: len(one.classes) for one in dataset.columns}} if dataset.columns else {}),
    }


def transfer_record(
    dataset: Dataset, splits: Splits, transfer: TransferSpec | None, extra: UnlabelledImages | None = None
) -> dict[str, Any]:
    """What is recorded of a transfer set besides: its images, and those that are held out and would be part of it; empty for none."""
    if transfer is None:
        return {}
    classes = range(len(dataset.classes)) if transfer.classes is None else transfer.classes
    drawn_val = splits.val if dataset.val is None else None
    held_out = 0 if drawn_val is None or transfer.only else int(torch.isin(drawn_val.targets, torch.tensor(list(classes))).sum())
    record: dict[str, Any] = {
        "images": len(splits.train.targets),
        "held_out": held_out,
        **({"classes": classes_in_words(transfer.classes, dataset.classes)} if transfer.classes is not None else {}),
    }
    if extra is not None:
        record |= {"unlabelled": extra.count, "source": extra.source, "notes": [*extra.notes, *overlap_notes(splits, extra)]}
    return {"transfer": record}


def overlap_notes(splits: Splits, extra: UnlabelledImages) -> list[str]:
    """A note on unlabelled images that are training or validation images too; images that stay in files are not compared."""
    places = splits.of_teacher
    train = splits.all_train.images if places is None else splits.all_train.images[places.to(splits.all_train.images.device)]
    by_part = {"training images": train, "validation images": None if splits.val is None else splits.val.images}
    counts = {what: in_common(images, extra) for what, images in by_part.items() if isinstance(images, Tensor)}
    overlaps = [f"{count:,} are {what}" for what, count in counts.items() if count]
    return [f"of these unlabelled images {' and '.join(overlaps)} too"] if overlaps else []


def taught_images(record: Mapping[str, Any]) -> int:
    """How many images a student is taught on."""
    return int(record["transfer"]["images"] if "transfer" in record else record["train"])


def without_validation(record: Mapping[str, Any]) -> dict[str, Any]:
    """The same where nothing is held out of the training images."""
    val_from_train = record["origins"].get("val") == "from train"
    gain = record["validation"] if val_from_train else 0
    origins = {part: words for part, words in record["origins"].items() if part != "val"}
    before, transfer = taught_images(record), record.get("transfer")
    if transfer is not None:
        record = {**record, "transfer": {**transfer, "images": before + transfer["held_out"], "held_out": 0}}
    more = taught_images(record) - before if transfer is not None else gain
    all_labelled = record["labelled"] == before - (0 if transfer is None else transfer.get("unlabelled", 0))
    return {
        **record,
        "unused": record["unused"] + record["validation"] - gain,
        "train": record["train"] + gain,
        "labelled": record["labelled"] + (more if all_labelled else 0),
        "validation": 0,
        "origins": origins,
    }


def data_lines(record: Mapping[str, Any], more: str | None = None) -> list[str]:
    """A record in words: all of it, or, where `more` says what prints the rest, at most LINES lines, those longer than WIDTH in brief.

    The last line then counts what is not shown and names `more`.
    """
    channels, height, width = record["shape"]
    count = record["train"] + record["validation"] + record["test"] + record["unused"]
    noun, colour = ("maps", "float32") if record.get("maps") else ("images", "grey" if channels == 1 else "colour")
    size = f"{height}x{width} {colour}"
    if record.get("texts"):
        noun, size = "texts", f"of at most {width} bytes"
    source = f", from {record['source']}" if record["source"] else ""
    task = record.get("task") or f"{record['classes']} classes"
    lines = [f"data: {count:,} {noun}, {task}, {size}{source}", _sizes(record, _origin)]
    transfer = transfer_lines(record)  # never cut: they are what was asked for
    lines += [f"data: {note}" for note in record["notes"]]
    if more is None or (len(lines) <= LINES and all(len(line) <= WIDTH for line in lines)):
        return [*lines[:2], *transfer, *lines[2:]]
    more_notes = max(len(lines) - LINES + 1, 0)
    brief = [_brief(line) for line in lines[: LINES - 1]]
    sizes = lines[1] if len(lines[1]) <= WIDTH else _sizes(record, lambda record, part: "")  # how many are in each part is never cut
    brief = [brief[0], sizes, *transfer, *brief[2:]]
    rest = f"{number_of(more_notes, 'more note')}, and all in full" if more_notes else "in full"
    return [*brief, f"data: {rest}: {more}"]


def _sizes(record: Mapping[str, Any], words: Callable[[Mapping[str, Any], str], str]) -> str:
    """How many images every part has, each with the words of its origin."""
    sizes = [
        f"train {record['train']:,}{words(record, 'train')}",
        *([f"validation {record['validation']:,}{words(record, 'val')}"] if record["validation"] else []),
        f"test {record['test']:,}{words(record, 'test')}",
        *([f"unused {record['unused']:,}"] if record["unused"] else []),
        *([f"{record['labelled']:,} labelled"] if record["labelled"] < record["train"] and "transfer" not in record else []),
    ]
    return f"data: {', '.join(sizes)}"


def _brief(line: str) -> str:
    """A line without the examples in parentheses where it is longer than WIDTH; what is left is never cut."""
    return line if len(line) <= WIDTH else line.partition(" (")[0]


def transfer_lines(record: Mapping[str, Any]) -> list[str]:
    """What the student is taught on, where that is a transfer set."""
    if "transfer" not in record:
        return []
    transfer, labelled = record["transfer"], record["labelled"]
    unlabelled = transfer.get("unlabelled", 0)
    own = transfer["images"] - unlabelled
    lines = []
    if own:
        share = f"{own:,} of {record['train']:,} images: {transfer['classes']}" if "classes" in transfer else f"all {own:,} training images"
        lines.append(f"the student is taught on {share}")
    if labelled < own:
        lines.append(f"{labelled:,} of these keep their labels; the teacher alone teaches the rest")
    if unlabelled:
        alone = "too" if own else "alone"
        lines.append(f"the student is taught on {number_of(unlabelled, 'unlabelled image')} {alone}, of {transfer['source']}")
    return [f"data: {line}" for line in (*lines, *transfer.get("notes", ()))]


def _origin(record: Mapping[str, Any], part: str) -> str:
    words = record["origins"].get(part)
    return f" ({words})" if words else ""
