"""The kinds of charts: which charts a bench has of each, with their rows and what they say in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import altair as alt
import pandas as pd

from kdzoo.suite.page.chart_kind import ChartKind
from kdzoo.suite.page.charts.classes import classes_chart
from kdzoo.suite.page.charts.curves import curves_chart
from kdzoo.suite.page.charts.forest import forest_chart
from kdzoo.suite.page.charts.pareto import pareto_chart
from kdzoo.suite.page.charts.reliability import agreement_chart, reliability_chart
from kdzoo.suite.page.charts.slices import slices_chart
from kdzoo.suite.page.charts.surface import surface_chart
from kdzoo.suite.page.frames.curves import AxisEnd, axis_end
from kdzoo.suite.page.frames.reliability import damaged_predictions
from kdzoo.suite.page.frames.sweeps import has_two_axes, part_words
from kdzoo.suite.page.tables import BenchTables
from kdzoo.suite.report.blocks import HEAD, labels
from kdzoo.suite.report.settings import AXIS_WORDS
from kdzoo.suite.report.swept import others_words
from kdzoo.tasks.task import Metric
from kdzoo.text import number_of

MOST_COLUMNS = 30
"""columns of a heat map whose headings are read in half the width of a page"""
MOST_NAMED = 3
"""series beyond the end of an axis that are named; of more the others are counted"""
SLICES: tuple[Literal["row", "column"], ...] = ("row", "column")


@dataclass(frozen=True)
class Chart:
    """One chart. frame: its rows, one for each mark; data: a name of the frame, the same for charts that share it.

    label: the table that it is of, empty where the bench has one. summary: what it shows, in a sentence for who cannot see it.
    """

    kind: ChartKind
    title: str
    label: str
    summary: str
    data: str
    frame: pd.DataFrame
    chart: alt.LayerChart

    @property
    def is_broad(self) -> bool:
        """Whether its columns are too many for a part of the page's width."""
        return self.kind is ChartKind.classes and self.frame["row"].nunique() > MOST_COLUMNS


def charts_of(kind: ChartKind, tables: BenchTables) -> list[Chart]:
    """All charts of one kind that a bench has runs for."""
    return list(KINDS[kind].charts(KINDS[kind].frame(tables), tables))


def _labels(tables: BenchTables) -> dict[tuple[object, ...], str]:
    """What tells tables apart, by the columns that say which table a row is of; empty where there is one table."""
    blocks = tables.bench.blocks
    names = labels(blocks) if len(blocks) > 1 else [""] * len(blocks)
    return {tuple(block.head.values()): name for block, name in zip(blocks, names, strict=True)}


def _groups(frame: pd.DataFrame, tables: BenchTables, *keys: str) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The rows of each value of the keys, with the label of their table and a name."""
    known = _labels(tables)
    for number, (_, rows) in enumerate(frame.groupby(list(keys), sort=False)):
        yield str(number), known.get(tuple(rows[list(HEAD)].iloc[0]), ""), rows


def _surfaces(frame: pd.DataFrame, tables: BenchTables) -> Iterator[Chart]:
    for number, label, rows in _groups(frame, tables, "sweep"):
        yield Chart(
            ChartKind.surface,
            _sweep_title(rows),
            label,
            _of_sweep(rows, tables.metric),
            f"sweep-{number}",
            rows,
            surface_chart(rows, tables.metric),
        )


def _slices(frame: pd.DataFrame, tables: BenchTables) -> Iterator[Chart]:
    for number, label, rows in _groups(frame, tables, "sweep"):
        for along in SLICES:
            if rows[along].nunique() < 2:
                continue
            axis = _axis(rows, along)
            lines = f", a line for each {_axis(rows, 'column' if along == 'row' else 'row')}" if has_two_axes(rows) else ""
            summary = f"{part_words(rows).capitalize()} {tables.metric.heading} along {axis}{lines}."
            chart = slices_chart(rows, tables.metric, along)
            yield Chart(ChartKind.slices, f"{_sweep_title(rows)} along {axis}", label, summary, f"sweep-{number}", rows, chart)


def _axis(rows: pd.DataFrame, along: str) -> str:
    axis = str(rows[f"{along}_axis"].iloc[0])
    return AXIS_WORDS.get(axis, axis)


def _sweep_title(rows: pd.DataFrame) -> str:
    besides = others_words(rows["others"].iloc[0])
    return str(rows["method"].iloc[0]) + (f" at {besides}" if besides else "")


def _of_sweep(rows: pd.DataFrame, metric: Metric) -> str:
    low, high = metric.with_unit(rows["mean"].min()), metric.with_unit(rows["mean"].max())
    count = number_of(len(rows), "setting")
    words = f"{part_words(rows).capitalize()} {metric.heading} of {count} of {rows['method'].iloc[0]}, from {low} to {high}."
    chosen = rows[rows["chosen"].astype(bool)]
    if chosen.empty:
        return words
    row = chosen.iloc[0]
    share = row["chosen_share"]
    often = "" if pd.isna(share) else f"; a bootstrap over seeds chooses it in {100 * share:.0f} % of resamples"
    return f"{words} Chosen: {row['setting'] or 'as published'} with {metric.with_unit(row['mean'])}{often}."


def _forests(frame: pd.DataFrame, tables: BenchTables) -> Iterator[Chart]:
    for number, label, rows in _groups(frame, tables, "table"):
        sides = rows["side"].value_counts()
        words = ", ".join(f"{count} {side}" for side, count in sides.items())
        summary = (
            f"Differences of {number_of(len(rows), 'row')} to tuned KD with 95 % intervals: {words}, by the intervals for all rows at once."
        )
        yield Chart(
            ChartKind.forest, "Differences to tuned KD", label, summary, f"forest-{number}", rows, forest_chart(rows, tables.metric)
        )


def _paretos(frame: pd.DataFrame, tables: BenchTables) -> Iterator[Chart]:
    known = _labels(tables)
    for number, (_, rows) in enumerate(frame.groupby(["group", "cost"], sort=False)):
        heads = rows[list(HEAD)].drop_duplicates()
        label = known.get(tuple(heads.iloc[0]), "") if len(heads) == 1 else "all pairs"
        cost = str(rows["cost"].iloc[0])
        front = ", ".join(rows.loc[rows["front"], "method"])
        summary = f"Test {tables.metric.heading} against {cost}; on the Pareto front: {front}."
        title = re.split(r",| \(", cost)[0]
        yield Chart(
            ChartKind.pareto, title[0].upper() + title[1:], label, summary, f"pareto-{number}", rows, pareto_chart(rows, tables.metric)
        )


def _curves(frame: pd.DataFrame, tables: BenchTables) -> Iterator[Chart]:
    for number, label, rows in _groups(frame, tables, "table", "measure"):
        measure, series, ends = str(rows["measure"].iloc[0]), rows["series"].nunique(), axis_end(rows)
        summary = (
            f"{measure} over {number_of(int(rows['epoch'].max()), 'epoch')} of {number_of(series, 'setting')}: mean and range over seeds."
            f"{_beyond_words(ends)}"
        )
        title = measure[0].upper() + measure[1:]
        chart = curves_chart(rows, tables.metric, ends.end)
        yield Chart(ChartKind.curves, title, label, summary[0].upper() + summary[1:], f"curves-{number}", rows, chart)


def _beyond_words(ends: AxisEnd) -> str:
    """A sentence for series that leave the picture; empty where none does."""
    if not ends.beyond:
        return ""
    names = [f"{name} reaches {peak:.4g}" for name, peak in ends.beyond[:MOST_NAMED]]
    more = f", {len(ends.beyond) - MOST_NAMED} more" if len(ends.beyond) > MOST_NAMED else ""
    return f" The axis ends at {ends.end:.3g}, so that the others can be told apart: {', '.join(names)}{more}."


def _classes(frame: pd.DataFrame, tables: BenchTables) -> Iterator[Chart]:
    for number, label, rows in _groups(frame, tables, "table"):
        best = rows.iloc[int(rows["gain"].argmax())]
        gain = f"{tables.metric.difference_text(best['gain'])} {tables.metric.difference_words}"
        count = number_of(rows["class"].nunique(), "class", "classes")
        summary = f"Gains over the student alone in {count}; {best['row']} has the largest, {gain}, in class {best['class']}."
        yield Chart(
            ChartKind.classes,
            "Gains per class over the student alone",
            label,
            summary,
            f"classes-{number}",
            rows,
            classes_chart(rows, tables.metric),
        )


def _reliability(frame: pd.DataFrame, tables: BenchTables) -> Iterator[Chart]:
    for number, label, rows in _groups(frame, tables, "table"):
        summary = f"Accuracy against confidence of {number_of(rows['series'].nunique(), 'setting')} on the test images of all seeds."
        yield Chart(ChartKind.reliability, "Reliability", label, summary, f"reliability-{number}", rows, reliability_chart(rows))


def _agreement(frame: pd.DataFrame, tables: BenchTables) -> Iterator[Chart]:
    for number, label, rows in _groups(frame, tables, "table"):
        if len(rows) < 2:
            continue
        top = rows.iloc[int(rows["test_agreement"].argmax())]
        summary = f"Agreement with the teacher on the test images; most, {100 * top['test_agreement']:.1f} %, has {top['row']}."
        chart = agreement_chart(rows, tables.metric)
        yield Chart(ChartKind.agreement, "Agreement with the teacher", label, summary, f"agreement-{number}", rows, chart)


def _damaged_predictions(tables: BenchTables) -> tuple[str, ...]:
    count = len(damaged_predictions(tables.bench)) if tables.bench.task.of_classes else 0
    return (f"The predictions of {number_of(count, 'run')} are damaged, or another run's, and left out.",) if count else ()


def _nothing(tables: BenchTables) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Kind:
    """A kind of charts. frame: the rows of all of them; charts: from some or all of these rows; needs: without what there is none.

    omissions: what the charts leave out because files cannot be read, a sentence each. of_classes: whether only a task of classes has any.
    """

    frame: Callable[[BenchTables], pd.DataFrame]
    charts: Callable[[pd.DataFrame, BenchTables], Iterator[Chart]]
    needs: str
    omissions: Callable[[BenchTables], tuple[str, ...]] = _nothing
    of_classes: bool = False

    def reason_for_none(self, tables: BenchTables) -> str:
        """Why a bench has no chart of this kind."""
        task = tables.bench.task
        if self.of_classes and not task.of_classes:
            return f"it takes a task of classes, and the task of this bench is {task.name}"
        done = any(record.state == "done" for record in tables.bench.records)
        return f"it takes {self.needs}" if done else "no run is done"


A_SWEEP = "a method of which two settings or more are done"
KINDS: Mapping[ChartKind, Kind] = {
    ChartKind.surface: Kind(lambda tables: tables.sweeps, _surfaces, A_SWEEP),
    ChartKind.slices: Kind(lambda tables: tables.sweeps, _slices, A_SWEEP),
    ChartKind.forest: Kind(lambda tables: tables.forest, _forests, "tuned KD and a healthy row beside it, of two seeds or more"),
    ChartKind.pareto: Kind(lambda tables: tables.pareto, _paretos, "two healthy rows whose measured costs differ"),
    ChartKind.curves: Kind(
        lambda tables: tables.curves.frame, _curves, "the metrics.jsonl of runs that are done", lambda tables: tables.curves.omissions
    ),
    ChartKind.classes: Kind(
        lambda tables: tables.classes, _classes, "the student alone, and errors per class in its results and in a method's", of_classes=True
    ),
    ChartKind.reliability: Kind(
        lambda tables: tables.reliability,
        _reliability,
        "runs with their predictions.npz, which they keep unless --keep leaves it out",
        _damaged_predictions,
        of_classes=True,
    ),
    ChartKind.agreement: Kind(lambda tables: tables.agreement, _agreement, "two healthy rows with a teacher"),
}
