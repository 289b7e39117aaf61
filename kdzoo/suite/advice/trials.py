"""What benches have measured of methods, as advice reads it: a trial is one method in one table. Free of torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from kdzoo.errors import InputError
from kdzoo.files import CONFIGS, read_file
from kdzoo.suite.plan.config import KD, NONE
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.tasks.classification import CLASSIFICATION

FILE = CONFIGS / "advice.csv"
COLLAPSED_GAIN = -3.0
"""points at least that a collapsed method counts as worse: what it loses beyond that says nothing about another pair"""
DIGITS = 5
"""significant digits of the numbers in the file"""


@dataclass(frozen=True)
class Trial:
    """One method in one table of a bench, at the setting that validation chose.

    gain: its accuracy on the test images less that of plain KD, tuned alike, in points. gain_low: the lower end of the gain's 95 %
    interval by itself; None of plain KD, and where one seed has none. validation: its accuracy on the validation
    images, in per cent; of a refit, and without any, None. dose: of its weight, on those networks.
    seeds: how many runs the gain is a mean of. collapsed: by the rule of the table. Where all seeds failed there is no accuracy: the
    gain is then COLLAPSED_GAIN.
    """

    bench: str
    data: str
    pair: str
    method: str
    gain: float
    gain_low: float | None
    validation: float | None
    seeds: int
    collapsed: bool
    temperature: float | None
    dose: float | None

    @property
    def table(self) -> tuple[str, str, str]:
        """The table that it stands in: bench, data, pair."""
        return self.bench, self.data, self.pair


def trials_of(bench: BenchRecords) -> list[Trial]:
    """The trials of a bench: of each pair and data set the refit where it has all methods, else the sweep.

    Left out are benches of another task than classification, sums of methods, pairs with several teachers, methods among whose
    settings no validation image chose, and tables in which plain KD has no healthy row or few methods stand beside it.
    """
    if bench.task.name != CLASSIFICATION.name:
        return []
    frame = leaderboard_frame(bench)
    found: list[Trial] = []
    for (pair, data, _), table in frame.groupby(["pair", "data", "recipe"], sort=True):
        rows = table[table["phase"] == phase_of(table)]
        rows = rows[~rows["method"].str.contains("+", regex=False) & ~rows["method"].isin(["teacher", NONE])]
        several = rows.duplicated("method", keep=False)
        rows = rows[~several | rows["val_top1"].notna()]
        kd = rows[(rows["method"] == KD) & rows["collapsed"].isna()]
        if "+" in str(pair) or kd.empty or len(rows) < 2:
            continue
        chosen = rows.sort_values("val_top1", ascending=False, kind="stable").drop_duplicates("method")
        reference = float(kd.sort_values("val_top1", ascending=False, kind="stable")["test_top1"].iloc[0])
        found += [_trial(bench.name, str(pair), str(data), row, reference) for _, row in chosen.sort_values("method").iterrows()]
    return found


def phase_of(table: pd.DataFrame) -> str:
    """The phase whose rows count: the refit, unless it lacks methods of the sweep, as one does that is still being trained."""
    methods = {phase: set(rows["method"]) for phase, rows in table.groupby("phase")}
    return "refit" if "refit" in methods and methods["refit"] >= methods.get("sweep", set()) else "sweep"


def _trial(bench: str, pair: str, data: str, row: Any, reference: float) -> Trial:
    failed = pd.isna(row["test_top1"])
    return Trial(
        bench=bench,
        data=data,
        pair=pair,
        method=str(row["method"]),
        gain=COLLAPSED_GAIN if failed else _rounded(100 * (float(row["test_top1"]) - reference)) or 0.0,
        gain_low=None if pd.isna(low := row.get("vs_kd_low")) else _rounded(100 * low),
        validation=None if pd.isna(row["val_top1"]) else _rounded(100 * row["val_top1"]),
        seeds=int(row["n"]),
        collapsed=failed or not pd.isna(row["collapsed"]),
        temperature=_rounded(row["temperature"]),
        dose=_rounded(row["dose"]),
    )


def _rounded(value: Any) -> float | None:
    return None if pd.isna(value) else float(f"{float(value):.{DIGITS}g}")


def as_csv(trials: Iterable[Trial]) -> str:
    """The text of a file of trials."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(["" if (value := getattr(trial, name)) is None else _cell(value) for name in COLUMNS] for trial in trials)
    return text.getvalue()


def _cell(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def read_trials(file: Path = FILE) -> list[Trial]:
    """The trials in a file; raises InputError for one that does not hold any."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_file(file).decode())))
        return [_read(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: expected a table of trials with the columns {', '.join(COLUMNS)} ({error})") from error


def _read(row: dict[str, str]) -> Trial:
    def number(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    return Trial(
        bench=row["bench"],
        data=row["data"],
        pair=row["pair"],
        method=row["method"],
        gain=float(row["gain"]),
        gain_low=number("gain_low"),
        validation=number("validation"),
        seeds=int(row["seeds"]),
        collapsed=row["collapsed"] == "1",
        temperature=number("temperature"),
        dose=number("dose"),
    )


COLUMNS: Sequence[str] = [field.name for field in fields(Trial)]
