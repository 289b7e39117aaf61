"""Benches beside each other: methods joined by name, differences with tests, and where their protocols differ."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.errors import InputError
from kdzoo.suite.report.compared import DETAILS, KEYS, TABLE_FILES, Entry, Side, read_side
from kdzoo.suite.report.error_model import WELCH, independent_model, paired_model
from kdzoo.tasks.task import Metric, Task


@dataclass(frozen=True)
class Comparison:
    """frame: one row per method, with each side's mean, and every other side's difference to the first. warnings: in words.

    task: whose headline is compared. names: what the sides are called in the columns, in their order.
    """

    task: Task
    frame: pd.DataFrame
    warnings: tuple[str, ...]
    names: tuple[str, ...]


def compare(paths: Sequence[Path]) -> Comparison:
    """Join benches (folders) and tables: leaderboard.csv, runs.csv, or columns method and the headline of a task[, seed] or [, sd, n].

    Differences are in the task's headline on the test images to the first side, with a 95 % interval: paired by seed where both
    sides have the same seeds run by run, else Welch's from means and standard deviations; none where a side's own table calls the row
    collapsed, or where both sides hold the same runs with the same results (a copy, or trained again).
    A row that only one side has is kept, and where a side has
    several rows for one of another's, each is compared with it. Warns for every part of the protocol that is not the same
    on all sides, and of copies. Raises InputError for sides of different tasks.
    """
    sides = [read_side(path) for path in paths]
    names = distinct_names([side.name for side in sides], paths)
    task = _one_task(sides, names)
    metric = task.headline
    keys = _keys(sides)
    details = [key for key in (*KEYS, *DETAILS) if key in keys or (key in KEYS and any(side.has(key) for side in sides))]
    rows = [_row(entries, metric, details, names) for entries in _joined(sides, keys)]
    columns = [*details, *(f"{name} {part}" for name in names for part in ("setting", metric.name, "sd", "n"))]
    columns += [f"{name} - {names[0]}{part}" for name in names[1:] for part in ("", " low", " high", " p", " test")]
    frame = pd.DataFrame(rows, columns=columns)
    return Comparison(task, frame, (*_copies(frame, names), *_warnings(sides, names)), tuple(names))


def _one_task(sides: Sequence[Side], names: Sequence[str]) -> Task:
    """The task of the first side, whose headline all sides have; raises InputError where they measure different things.

    A student of one column of targets and one of several are compared in their primary column, where that is the same.
    """
    heads = {side.task.headline.name for side in sides}
    primaries = {side.task.columns[0].name for side in sides if side.task.columns}
    if len(heads) > 1 or len(primaries) > 1:
        tasks = ", ".join(f"{name} is of {side.task.name}" for name, side in zip(names, sides, strict=True))
        raise InputError(f"compare: expected benches of one task: {tasks}")
    return sides[0].task


SAME_RUNS = "none: the same runs"


def _copies(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """A warning for every side of which rows are made of the first side's runs."""
    warnings = []
    for name in names[1:]:
        tests = frame[f"{name} - {names[0]} test"]
        same = tests.eq(SAME_RUNS).sum()
        if same:
            rows = int(tests.notna().sum())
            alike = f"the same runs with the same results as in {names[0]} (a copy, or trained again)"
            warnings.append(f"{name}: {same} of {rows} rows are {alike}: they have no test")
    return warnings


def _keys(sides: Sequence[Side]) -> list[str]:
    """The columns that rows are joined by: those that all sides have, as many as it takes to tell a side's rows apart."""
    keys = [key for key in KEYS if all(side.has(key) for side in sides)]

    def distinct(by: Sequence[str]) -> int:
        return sum(len({_key(entry, by) for entry in side.entries}) for side in sides)

    for detail in DETAILS:
        if all(side.has(detail) for side in sides) and distinct([*keys, detail]) > distinct(keys):
            keys.append(detail)
    return keys


def _key(entry: Entry, keys: Iterable[str]) -> tuple[Any, ...]:
    return tuple(entry.where[key] for key in keys)


def _joined(sides: Sequence[Side], keys: Sequence[str]) -> list[tuple[Entry | None, ...]]:
    """The rows of all sides that belong together, in the order in which the sides have them."""
    by_key: dict[tuple[Any, ...], list[list[Entry | None]]] = {}
    for position, side in enumerate(sides):
        for entry in side.entries:
            by_key.setdefault(_key(entry, keys), [[] for _ in sides])[position].append(entry)
    return [row for groups in by_key.values() for row in itertools.product(*(group or [None] for group in groups))]


def _row(entries: Sequence[Entry | None], metric: Metric, shown: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    present = [entry for entry in entries if entry is not None]
    row: dict[str, Any] = {key: next((e.where[key] for e in present if e.where.get(key) is not None), None) for key in shown}
    for name, entry in zip(names, entries, strict=True):
        if entry is not None:
            row |= {
                f"{name} setting": entry.setting or None,
                f"{name} {metric.name}": entry.mean,
                f"{name} sd": entry.sd,
                f"{name} n": entry.n,
            }
    for name, entry in zip(names[1:], entries[1:], strict=True):
        if entry is not None and entries[0] is not None:
            row |= {f"{name} - {names[0]}{part}": value for part, value in _difference(entry, entries[0]).items()}
    return row


def _difference(entry: Entry, base: Entry) -> dict[str, Any]:
    """The difference of two rows, with what can be said of its chance: a paired test, Welch's, or nothing."""
    difference = {"": entry.mean - base.mean}
    if same := entry.same_runs(base):
        whole = same == max(len(entry.seeds or ()), len(base.seeds or ()))
        return {**difference, " test": SAME_RUNS if whole else f"none: {same} runs are the same"}
    if entry.collapsed or base.collapsed:
        return {**difference, " test": "none: collapsed"}
    known = base.resolution is not None and entry.resolution is not None
    resolution = max(base.resolution or 0.0, entry.resolution or 0.0) if known else 0.0
    if entry.seeds and base.seeds and entry.seeds.keys() == base.seeds.keys() and len(base.seeds) > 1:
        values = np.array([[side.seeds[seed] for seed in base.seeds] for side in (base, entry) if side.seeds])
        model, test = paired_model(values, resolution), "paired by seed"
    elif (entry.n or 0) > 1 and (base.n or 0) > 1 and not (math.isnan(entry.sd) or math.isnan(base.sd)):
        means, sds = np.array([base.mean, entry.mean]), np.array([base.sd, entry.sd])
        model, test = independent_model(means, sds**2, np.array([base.n, entry.n]), resolution, WELCH), "Welch"
    else:
        return difference
    contrast = model.against(0)
    low, high = contrast.interval()
    return {**difference, " low": low[1], " high": high[1], " p": contrast.p()[1], " test": test}


def _warnings(sides: Sequence[Side], names: Sequence[str]) -> list[str]:
    warnings = []
    for key in sorted({key for side in sides for key in side.protocol}):
        known = {name: side.protocol[key] for name, side in zip(names, sides, strict=True) if side.protocol.get(key)}
        if len(set(known.values())) > 1:
            warnings.append(f"{key} differs: {', '.join(f'{name} has {_listed(values)}' for name, values in known.items())}")
    silent = [name for name, side in zip(names, sides, strict=True) if "data.fingerprint" not in side.protocol]
    if silent and len(sides) > 1:
        warnings.append(
            f"{', '.join(silent)}: a table alone does not tell how its numbers were made, so the protocols could not be compared"
        )
    return warnings


def _listed(values: frozenset[str]) -> str:
    return " and ".join(sorted(values, key=lambda value: (len(value), value)))


def distinct_names(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Names that differ: with as many folders before them as that takes, and with their position where the paths are equal."""
    parents = [_folder_of(path.resolve()) for path in paths]
    distinct = list(names)
    for depth in range(1, max(len(parent.parts) for parent in parents)):
        if len(set(distinct)) == len(distinct):
            return distinct
        longer = ["/".join((*parent.parts[1:][-depth:], name)) for parent, name in zip(parents, names, strict=True)]
        distinct = [long if names.count(name) > 1 else name for long, name in zip(longer, names, strict=True)]
    return [name if distinct.count(name) == 1 else f"{name} ({position})" for position, name in enumerate(names, start=1)]


def _folder_of(path: Path) -> Path:
    """The folder that a side's name stands in: a bench's own tables bear the bench's name."""
    return path.parent.parent if path.name in TABLE_FILES else path.parent
