"""What was found in a data set, as a record beside a run and as the first lines of a bench."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdzoo.data.images import Images
from kdzoo.data.split import Parts
from kdzoo.text import number_of, shortened

WIDTH = 80
LINES = 6


def data_record(images: Images, parts: Parts) -> dict[str, Any]:
    """What was found, as JSON has it: how many images of which size in which part, where they came from, and every note."""
    drawn = images.val is None and parts.val is not None
    there = sum(len(subset.targets) for subset in (images.train, images.val, images.test) if subset is not None)
    used = sum(len(subset.targets) for subset in (parts.train, parts.val, parts.test) if subset is not None)
    return {
        "name": images.name,
        "source": images.source,
        "classes": len(images.classes),
        "shape": [images.channels, images.height, images.width],
        "train": len(parts.train.targets),
        "labelled": int((parts.train.targets >= 0).sum()),
        "validation": 0 if parts.val is None else len(parts.val.targets),
        "test": len(parts.test.targets),
        "unused": there - used,
        "origins": {**images.origins, **({"val": "from train"} if drawn else {})},
        "notes": list(images.notes),
    }


def without_validation(record: Mapping[str, Any]) -> dict[str, Any]:
    """The same where nothing is held out of the training images."""
    drawn = record["origins"].get("val") == "from train"
    added = record["validation"] if drawn else 0
    origins = {part: words for part, words in record["origins"].items() if part != "val"}
    return {
        **record,
        "unused": record["unused"] + record["validation"] - added,
        "train": record["train"] + added,
        "labelled": record["labelled"] + (added if record["labelled"] == record["train"] else 0),
        "validation": 0,
        "origins": origins,
    }


def data_lines(record: Mapping[str, Any], more: str | None = None) -> list[str]:
    """A record in words: all of it, or, where `more` says what prints the rest, at most LINES lines of WIDTH columns.

    The last line then counts what is not shown and names `more`, which is never cut.
    """
    channels, height, width = record["shape"]
    count = record["train"] + record["validation"] + record["test"] + record["unused"]
    colour = "grey" if channels == 1 else "colour"
    sizes = [
        f"train {record['train']:,}{_origin(record, 'train')}",
        *([f"validation {record['validation']:,}{_origin(record, 'val')}"] if record["validation"] else []),
        f"test {record['test']:,}{_origin(record, 'test')}",
        *([f"unused {record['unused']:,}"] if record["unused"] else []),
        *([f"{record['labelled']:,} labelled"] if record["labelled"] < record["train"] else []),
    ]
    source = f", from {record['source']}" if record["source"] else ""
    lines = [f"data: {count:,} images, {record['classes']} classes, {height}x{width} {colour}{source}", f"data: {', '.join(sizes)}"]
    lines += [f"data: {note}" for note in record["notes"]]
    if more is None or (len(lines) <= LINES and all(len(line) <= WIDTH for line in lines)):
        return lines
    left = max(len(lines) - LINES + 1, 0)
    shown = [shortened(line, WIDTH) for line in lines[: LINES - 1]]
    hidden = f"{number_of(left, 'more note')}, and all in full" if left else "in full"
    return [*shown, f"data: {hidden}: {more}"]


def _origin(record: Mapping[str, Any], part: str) -> str:
    words = record["origins"].get(part)
    return f" ({words})" if words else ""
