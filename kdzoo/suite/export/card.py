"""What is said of an exported student: its run, its numbers with intervals, its data, and what it was not tested on; in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import pandas as pd

from kdzoo.runs.spec import Run
from kdzoo.runs.store import RunFolder, is_teacher
from kdzoo.suite.plan.config import NONE
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.cells import method_words
from kdzoo.suite.report.intervals import wilson
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.suite.report.licences import licences_of
from kdzoo.suite.report.markdown import markdown_table
from kdzoo.suite.report.records import Record, read_record, taught_on
from kdzoo.suite.report.runs_table import SETTING, setting_columns
from kdzoo.suite.report.sections import collapsed_frame, display_frame
from kdzoo.suite.report.settings import setting_text
from kdzoo.tasks.features import UNLABELLED
from kdzoo.text import code_text, markdown_text, number_of
from kdzoo.version import VERSION


def card_words(folder: RunFolder) -> str:
    """What is said of the student of a finished run below the code that uses it, in Markdown."""
    record = read_record(folder)
    parts = {
        "How it was trained": training_words(record),
        "How good it is": "\n\n".join(filter(None, (result_words(record), row_words(folder, record)))),
        "Data": data_words(record),
        "Licences": licence_lines(record),
        "Limits": limits_words(record),
    }
    return "\n\n".join(f"## {title}\n\n{text}" for title, text in parts.items())


def training_words(record: Record) -> str:
    """From what, with which method and recipe a student was trained."""
    run, about = record.run, record.about
    setting = setting_text(run, about)
    without = "nothing: it is as it started" if record.task.of_features else "labels alone, without a teacher"
    how = method_words(record.method) if record.method != NONE else without
    teacher = f", taught by `{run.teacher.name}`" if run.teacher is not None else ""
    recipe = code_text(str(about.get("recipe") or "its own"))
    return (
        f"`{run.student.name}` ({_start_words(run)}){teacher}. Method: {how}{f' at {setting}' if setting else ''}. Recipe: "
        f"{recipe}, {number_of(run.recipe.epochs, 'epoch')}, seed {run.seed}. Run: `{record.id}`, whose "
        f"`run.json` holds every number that decided it. Exported by kdzoo {VERSION}."
    )


def _start_words(run: Run) -> str:
    kind = run.student.start.partition(":")[0]
    return {"random": "from a random start", "pretrained": "from pretrained weights", "run": "from another run's weights"}.get(
        kind, "from weights in a file"
    )


def result_words(record: Record) -> str:
    """A run's own numbers on the test images, with the interval of the first over these images."""
    assert record.result is not None
    test: Mapping[str, Any] = record.result["last"]["test"]
    headline = record.task.headline
    value, n = test[headline.name], int(test["n"])
    interval = ""
    if headline.per_sample and headline.unit == "share":
        low, high = wilson(round(value * n), n)
        interval = f" [{headline.text(low)}, {headline.text(high)}] (95 %, over images)"
    others = [f"{m.heading} {m.with_unit(test[m.name])}" for m in record.task.metrics if m is not headline and test.get(m.name) is not None]
    numbers = "; ".join(filter(None, [f"{headline.heading} {headline.with_unit(value)}{interval}", ", ".join(others)]))
    return f"This network, on {number_of(n, 'test image')}: {numbers}."


def row_words(folder: RunFolder, record: Record) -> str:
    """The row of a student's setting in the table of its bench; empty where it stands in none, as a teacher does."""
    if is_teacher(folder):
        return ""
    bench = read_bench(folder.path.parent.parent)
    block = next((block for block in bench.blocks if any(other.id == record.id for other in block.records)), None)
    if block is None:
        return ""
    rows = block.rows_of(leaderboard_frame(bench))
    rows = rows[rows["method"] == record.method]
    setting = setting_columns(record)
    own = rows[[all(_same(row[name], setting[name]) for name in SETTING) for _, row in rows.iterrows()]]
    if rows.empty:
        return ""
    if own.empty:
        return "Its setting is not the one that was chosen for its method in its bench, so it has no row there."
    healthy = own[own["collapsed"].isna()]
    metric = record.task.headline
    table = collapsed_frame(own, metric) if healthy.empty else display_frame(healthy, metric)
    compact = table[[name for name in table.columns if table[name].any()]]
    seeds = number_of(int(own["n"].max()), "seed")
    what = f"Its setting in the bench `{markdown_text(bench.name)}`, over {seeds} (leaderboard.md there explains the columns):"
    return "\n".join([what, "", *markdown_table(compact)])


def _same(cell: object, value: object) -> bool:
    return (value is None and bool(pd.isna(cell))) or cell == value  # type: ignore[call-overload]


def data_words(record: Record) -> str:
    """On which images a student was trained and tested."""
    about = record.about.get("data")
    data: Mapping[str, Any] = about if isinstance(about, dict) else {}
    if not data:
        return f"`{record.run.data.name}`{_classes_words(record)}."
    words = {"train": "to train on", "validation": "for validation", "test": "to test"}
    counts = ", ".join(f"{data[part]:,} {purpose}" for part, purpose in words.items())
    channels, height, width = data["shape"]
    source = f", from {without_path(data['source'])}" if data.get("source") else ""
    notes = " ".join(f"{note[0].upper()}{note[1:].rstrip('.')}." for note in data.get("notes", []))
    transfer = taught_on(record)
    return (
        f"`{record.run.data.name}`{markdown_text(source)}{_classes_words(record)}, {height}x{width} "
        f"{'grey' if channels == 1 else 'colour'} images: {counts}; fingerprint `{record.run.data.fingerprint}`."
        + (f" Taught on: {markdown_text(transfer)}." if transfer else "")
        + (f" {markdown_text(notes)}" if notes else "")
    )


def _classes_words(record: Record) -> str:
    """How many classes the data of a run have; nothing for images without labels."""
    return "" if record.task.name == UNLABELLED.name else f": {number_of(record.run.data.classes, 'class', 'classes')}"


def without_path(source: str) -> str:
    """The words for where images came from, with the last part alone of a folder's path: the rest names somebody's machine."""
    kind, _, rest = source.partition(" ")
    if kind != "folder":
        return source
    path, bracket, kinds = rest.partition(" (")
    return f"folder {PurePath(path).name}{bracket}{kinds}"


def licence_lines(record: Record) -> str:
    """Under which licences that stands which a student was made from, in a list."""
    things = licences_of([record])
    if not things:
        return "Unknown: the run was planned before licences were recorded. Ask whoever published its teacher, its start and its data."
    lines = [f"- {thing.part} {code_text(thing.of)}: {markdown_text(thing.licence)}" for thing in things]
    return "\n".join([*lines, "", "As those say who publish them. What they ask of a network made from them is for its user to judge."])


def limits_words(record: Record) -> str:
    """What the numbers do not say."""
    assert record.result is not None
    n = int(record.result["last"]["test"]["n"])
    answers = (
        "It gives every image an embedding, also one unlike all that it was trained on."
        if record.task.of_features
        else f"It gives every image one of its {record.run.data.classes} classes, also an image of none of them."
    )
    return (
        f"{answers} Its numbers are of "
        f"{number_of(n, 'image')} from the same source as its training images; on others it may do worse, and was not tested. "
        f"They are of one training with seed {record.run.seed}; another seed gives another network."
    )
