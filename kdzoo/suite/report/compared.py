"""One of the things that are compared: a bench's folder, or a table as CSV, with its rows and its protocol."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.errors import InputError
from kdzoo.suite.report.bench import BenchRecords, read_bench
from kdzoo.suite.report.blocks import TEACHER
from kdzoo.suite.report.cells import setting_words
from kdzoo.suite.report.error_model import sample_sd
from kdzoo.suite.report.protocol import protocol_of, value_text
from kdzoo.suite.report.runs_table import SETTING, setting_columns
from kdzoo.tasks.known import TASKS
from kdzoo.tasks.task import Task

TABLE_FILES = ("leaderboard.csv", "runs.csv")
VALUE = "value"
"""the column of the headline, whatever a table calls it"""


KEYS = ("pair", "data", "phase", "method")


DETAILS = ("recipe", "epochs", *SETTING)
"""join rows only where KEYS leave several of one side"""


SAME_AS = {"epochs": "recipe.epochs", "data": "data.name", "recipe": "recipe", "phase": "phase", "n": "n"}
"""the columns of a table that say something of its protocol, by the name a bench has for it"""


@dataclass(frozen=True)
class Entry:
    """One row of a side: its place, and its mean headline on the test images; by seed where single runs are known, n where it is known.

    collapsed: whether its table says so; such a row has a difference and no test. resolution: what one test image makes of a
    value, None where that is not known.
    setting: its chosen setting in words. ids: of its runs by seed, where they are known.
    """

    where: Mapping[str, Any]
    mean: float
    sd: float
    n: int | None
    seeds: Mapping[int, float] | None = None
    collapsed: bool = False
    resolution: float | None = None
    setting: str = ""
    ids: Mapping[int, str] = field(default_factory=dict)

    def same_runs(self, other: Entry) -> int:
        """How many of its runs are the other's: those of equal ids, where all of them have equal values too.

        Where one has not, the runs were trained again, on another machine or by another version of torch.
        """
        if self.seeds is None or other.seeds is None:
            return 0
        shared = [seed for seed, run_id in self.ids.items() if other.ids.get(seed) == run_id]
        return len(shared) if all(self.seeds[seed] == other.seeds[seed] for seed in shared) else 0


@dataclass(frozen=True)
class Side:
    """One of the things compared: its rows, and every part of its protocol that it says, with all values it has there.

    task: whose headline its rows have.
    """

    name: str
    task: Task
    entries: tuple[Entry, ...]
    protocol: Mapping[str, frozenset[str]]

    def has(self, key: str) -> bool:
        return all(key in entry.where for entry in self.entries)


def read_side(path: Path) -> Side:
    """A bench's folder, or a CSV; raises InputError for what is neither."""
    if path.is_dir():
        return _bench_side(read_bench(path))
    if not path.is_file():
        raise InputError(f"compare: {path}: no such bench or file")
    try:
        table = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise InputError(f"compare: {path}: not a CSV table ({error})") from error
    task, column = _headline_column(table, path)
    name = path.parent.resolve().name if path.name in TABLE_FILES else path.stem
    table = _with_numbers(table.rename(columns={column: VALUE, "test_sd": "sd"}), task, path)
    if task.headline.unit == "share":
        table = _as_shares(table, task)
    table = table[table[VALUE].notna() & (table["method"] != TEACHER)]
    by_seed = "seed" in table and "n" not in table
    entries = _entries_by_seed(table, task, path) if by_seed else _entries_of_means(table)
    protocol = {k: frozenset(value_text(v) for v in table[c].dropna()) for c, k in SAME_AS.items() if c in table}
    return Side(name, task, tuple(entries), {"n": _counts(entries), **protocol})


def _headline_column(table: pd.DataFrame, path: Path) -> tuple[Task, str]:
    """The task whose headline a table has, and the column with it; raises InputError where it has that of none."""
    for task in TASKS.values():
        names = (task.headline.name, *task.headline.aliases)
        columns = [name for form in ("test_{}", "{}") for one in names if (name := form.format(one)) in table]
        if columns and "method" in table:
            return task, columns[0]
    heads = " or ".join(f"test_{name} (or {name})" for name in dict.fromkeys(task.headline.name for task in TASKS.values()))
    raise InputError(f"compare: {path}: expected columns method and {heads}, found: {', '.join(map(str, table.columns))}")


def _on_validation(task: Task) -> list[str]:
    """The columns that a setting is chosen by, the first first."""
    return [f"val_{metric.name}" for metric in task.deciding]


def _with_numbers(table: pd.DataFrame, task: Task, path: Path) -> pd.DataFrame:
    """The table with numbers where numbers have to be; raises InputError that names what is none."""
    problems = []
    for column in [c for c in (VALUE, "sd", "n", "seed", *_on_validation(task)) if c in table]:
        numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
        wrong = numbers.isna() & table[column].notna()
        lines = [line for line, bad in enumerate(wrong, start=2) if bad]
        problems += [f"compare: {path}: {column}: expected a number, got {table[column][line - 2]!r} (line {line})" for line in lines]
        table = table.assign(**{column: numbers})
    if problems:
        raise InputError(*problems)
    return table


def _as_shares(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The headline as shares, where the table has it in per cent."""
    if not (table[VALUE] > 1).any():
        return table
    return table.assign(**{c: table[c] / 100 for c in (VALUE, "sd", f"val_{task.headline.name}") if c in table})


def _bench_side(bench: BenchRecords) -> Side:
    entries = [
        Entry(
            where={**block.head, "method": standing.record.method, **setting_columns(standing.record)},
            mean=standing.mean,
            sd=sample_sd(list(standing.values.values())),
            n=len(standing.done),
            seeds=standing.values,
            collapsed=standing.collapsed is not None,
            resolution=standing.resolution,
            setting=standing.setting,
            ids={record.run.seed: record.id for record in standing.done},
        )
        for block in bench.blocks
        for standing in block.standings
        if standing.done
    ]
    return Side(bench.name, bench.task, tuple(entries), {**protocol_of(bench), "n": _counts(entries)})


def _entries_by_seed(table: pd.DataFrame, task: Task, path: Path) -> list[Entry]:
    """A row for every method, at the setting that is best on validation where the table has that, else for every setting."""
    keys = [key for key in (*KEYS, "recipe", "epochs") if key in table]
    settings = [key for key in SETTING if key in table]
    entries = []
    for _, group in table.groupby(keys, dropna=False, sort=False):
        options = [part for _, part in group.groupby(settings, dropna=False, sort=False)] if settings else [group]
        head = _on_validation(task)[0]
        if len(options) > 1 and head in group and group[head].notna().all():
            options = [max(options, key=partial(_rank, task))]
        for option in options:
            twice = option.loc[option["seed"].duplicated(), "seed"]
            if len(twice):
                raise InputError(f"compare: {path}: {option['method'].iloc[0]} has seed {twice.iloc[0]:g} twice in one setting")
            values = {int(seed): float(value) for seed, value in zip(option["seed"], option[VALUE], strict=True)}
            ids = {int(seed): str(run_id) for seed, run_id in zip(option["seed"], option["id"], strict=True)} if "id" in option else {}
            mean, sd = float(np.mean(list(values.values()))), sample_sd(list(values.values()))
            where = _where(option.iloc[0], [*keys, *settings])
            entries.append(Entry(where, mean, sd, len(values), values, setting=setting_words(option.iloc[0]), ids=ids))
    return entries


def _rank(task: Task, option: pd.DataFrame) -> tuple[float, ...]:
    """As settings are chosen in a bench: by seeds, then by the task's deciding metrics on validation."""
    columns = zip(task.deciding, _on_validation(task), strict=True)
    return (len(option), *(metric.sign * round(float(option[name].mean()), 10) for metric, name in columns if name in option))


def _entries_of_means(table: pd.DataFrame) -> list[Entry]:
    keys = [key for key in (*KEYS, *DETAILS) if key in table]
    return [
        Entry(
            where=_where(row, keys),
            mean=float(row[VALUE]),
            sd=float(row.get("sd", math.nan)),
            n=int(row["n"]) if "n" in row and not pd.isna(row["n"]) else None,
            collapsed="collapsed" in row and not pd.isna(row["collapsed"]),
            setting=setting_words(row),
        )
        for _, row in table.iterrows()
    ]


def _where(row: pd.Series, keys: Iterable[str]) -> dict[str, Any]:
    return {key: None if pd.isna(row[key]) else row[key] for key in keys}


def _counts(entries: Iterable[Entry]) -> frozenset[str]:
    return frozenset(str(entry.n) for entry in entries if entry.n is not None)
