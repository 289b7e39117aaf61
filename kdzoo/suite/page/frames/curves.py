"""Learning curves as a frame, from the runs' metrics.jsonl."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kdzoo.runs.metrics_file import number_in, read_whole
from kdzoo.runs.store import Store
from kdzoo.suite.page.frames.series import colours_of, names_of
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.blocks import HEAD, Block, Standing
from kdzoo.suite.report.records import Record
from kdzoo.tasks.task import Task
from kdzoo.text import are, number_of

TRAINING = "training loss"
FAR = 4
"""times the lower median over series of their highest training losses: a loss beyond has exploded, and would flatten all others"""
MOST_EPOCHS = 60
"""number of epochs that a curve shows at the most; of more, evenly spaced ones and the last"""
COLUMNS = ("table", *HEAD, "measure", "method", "setting", "series", "colour", "epoch", "n", "mean", "low", "high")


@dataclass(frozen=True)
class _Course:
    """A run's lines by epoch. passed_over: the number of lines whose epoch is none of the run's; unread: of those that are none of its."""

    lines: Mapping[int, Mapping[str, Any]]
    passed_over: int
    unread: int


@dataclass(frozen=True)
class AxisEnd:
    """Where the axis of a measure ends, None for where its values do, and the series with values beyond, highest first, with these."""

    end: float | None
    beyond: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Curves:
    """Learning curves as rows, and what they leave out, a sentence each."""

    frame: pd.DataFrame
    omissions: tuple[str, ...]


def read_curves(bench: BenchRecords) -> Curves:
    """A row a setting, measure and epoch: mean, lowest and highest over the seeds that have come so far.

    Of the chosen settings and the controls: the task's headline on validation, where something was held out, and the task's part of the
    training loss, which methods have in common. table: counts the tables of the bench, from 0.
    """
    records = {record.id: record for block in bench.blocks for standing in block.standings for record in standing.done}
    courses = {run_id: _read_course(bench, record) for run_id, record in records.items()}
    rows = [row for number, block in enumerate(bench.blocks) for row in _rows(number, block, bench.task, courses)]
    return Curves(pd.DataFrame(rows, columns=list(COLUMNS)), tuple(_omissions(courses.values())))


def axis_end(rows: pd.DataFrame) -> AxisEnd:
    """The end of the axis for the rows of one measure of one table: of a training loss a tenth above the highest that has not exploded."""
    peaks = rows.groupby("series")["high"].max().sort_values(ascending=False)
    usual = float(peaks.quantile(0.5, interpolation="lower"))
    far = peaks > FAR * usual
    if not str(rows["measure"].iloc[0]).startswith(TRAINING) or not usual > 0 or not far.any():
        return AxisEnd(None, ())
    return AxisEnd(1.1 * float(peaks[~far].max()), tuple((str(name), float(peak)) for name, peak in peaks[far].items()))


def _read_course(bench: BenchRecords, record: Record) -> _Course:
    """What a run's file says of its epochs, which it counts from 1."""
    whole = read_whole(Store(bench.folder).run(record.id).metrics, record.id)
    lines: dict[int, Mapping[str, Any]] = {}
    last = 0
    for line in whole.records:
        epoch = line.get("epoch")
        if type(epoch) is int and last < epoch <= record.run.recipe.epochs:
            lines[epoch], last = line, epoch
    return _Course(lines, len(whole.records) - len(lines), whole.unread)


def _omissions(courses: Iterable[_Course]) -> Iterator[str]:
    courses = list(courses)
    if empty := sum(not course.lines for course in courses):
        have = f"{number_of(empty, 'run')} {'has' if empty == 1 else 'have'}"
        yield f"{have} no curve: metrics.jsonl is missing there, or has no line that can be read as theirs."
    if passed_over := sum(course.passed_over for course in courses):
        yield f"{_lines_are(passed_over)} passed over, with an epoch that is none of the run's or out of order."
    if unread := sum(course.unread for course in courses if course.lines):
        yield f"{_lines_are(unread)} not read: the first that is torn or another run's, and all below it."


def _lines_are(count: int) -> str:
    return are(count, "line of metrics.jsonl", "lines of metrics.jsonl")


def _rows(number: int, block: Block, task: Task, courses: Mapping[str, _Course]) -> Iterator[dict[str, Any]]:
    standings = [standing for standing in block.standings if standing.done]
    colours = colours_of(block)
    for name, standing in zip(names_of(standings), standings, strict=True):
        of_runs = [courses[record.id] for record in standing.done]
        for measure, values_by_epoch in _measures(of_runs, task, standing).items():
            for epoch in _shown(values_by_epoch):
                values = values_by_epoch[epoch]
                yield {
                    "table": number,
                    **block.head,
                    "measure": measure,
                    "method": standing.record.method,
                    "setting": standing.setting,
                    "series": name,
                    "colour": colours[name],
                    "epoch": epoch,
                    "n": len(values),
                    "mean": sum(values) / len(values),
                    "low": min(values),
                    "high": max(values),
                }


def _measures(runs: Iterable[_Course], task: Task, standing: Standing) -> dict[str, dict[int, list[float]]]:
    """The values of every measure by epoch, over the runs."""
    metric = standing.metric
    measures: dict[str, dict[int, list[float]]] = {}
    for course in runs:
        for epoch, line in course.lines.items():
            found = {f"validation {metric.heading}": number_in(line.get("val"), metric.name)}
            if not task.of_features:  # there methods have no loss in common
                found[f"{TRAINING}: {task.loss_name}"] = _loss_of_task(line, task)
            for measure, value in found.items():
                if value is not None:
                    measures.setdefault(measure, {}).setdefault(epoch, []).append(value)
    return measures


def _loss_of_task(line: Mapping[str, Any], task: Task) -> float | None:
    """The task's part of the training loss in an epoch's line, or the whole loss where it has no parts; None for what is no number."""
    parts = line.get("parts")
    if isinstance(parts, Mapping) and task.loss_name in parts:
        return number_in(parts, task.loss_name)
    return number_in(line, "loss")


def _shown(values_by_epoch: Mapping[int, list[float]]) -> list[int]:
    """All epochs, or evenly spaced ones and the last."""
    epochs = sorted(values_by_epoch)
    if len(epochs) <= MOST_EPOCHS:
        return epochs
    return [epochs[round(at * (len(epochs) - 1) / (MOST_EPOCHS - 1))] for at in range(MOST_EPOCHS)]
