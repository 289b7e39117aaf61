"""The surfaces of a study as tables, from the folders of its runs alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kdzoo.errors import InputError
from kdzoo.suite.plan.refit import refit_seeds
from kdzoo.suite.report.axes import value_words
from kdzoo.suite.report.records import Record
from kdzoo.suite.report.surface import Key, Surface, SurfaceCell, runs_by_place
from kdzoo.suite.report.table_files import as_csv
from kdzoo.suite.study.metrics import is_count, lower_is_better, resolution_of, value_of
from kdzoo.suite.study.stages import has_setting, planned_bench
from kdzoo.suite.study.study import Study
from kdzoo.suite.study.surface import SurfaceSpec
from kdzoo.text import markdown_text

FILE = "surfaces.csv"
COLUMNS = ("surface", "metric", "row_axis", "row", "column_axis", "column", "n", "planned", "mean", "sd", "low", "high", "standing")


@dataclass(frozen=True)
class Drawn:
    """A surface that was asked for, with its cells; why it has none in `reason`. planned: how many seeds a cell has once all are done."""

    spec: SurfaceSpec
    surface: Surface
    planned: int
    reason: str = ""

    def standings(self) -> dict[Key, str]:
        """The best of its cells, and those that are not told apart from it."""
        return self.surface.standings(self.spec.best)


def draw_all(study: Study, folder: Path) -> tuple[Drawn, ...]:
    """Every surface of a study, as far as its runs are done."""
    return tuple(_drawn(study, spec, folder) for spec in study.surfaces)


def _drawn(study: Study, spec: SurfaceSpec, folder: Path) -> Drawn:
    stage = study.stage(spec.stage)
    config = study.config(stage)
    planned = len(refit_seeds(spec.method, config) if spec.phase == "refit" else config.seeds_for(spec.method))
    try:
        cells, reason = _cells(spec, folder / stage.name), ""
    except InputError as error:
        cells, reason = {}, "; ".join(error.problems)
    return Drawn(spec, Surface(cells, lower_is_better(spec.metric)), planned, reason)


def _cells(spec: SurfaceSpec, folder: Path) -> dict[Key, SurfaceCell]:
    """The cells of a surface; raises InputError where there is no run, or where a cell holds runs of several settings."""
    records = _of_method(spec, folder) if (folder / "runs").is_dir() else []
    if not records:
        raise InputError(f"{spec.method}: no finished run")
    return {key: _cell(spec.metric, there) for key, there in runs_by_place(records, spec.rows, spec.columns).items()}


def _of_method(spec: SurfaceSpec, folder: Path) -> list[Record]:
    """The finished runs of a surface's method, at its setting."""
    return [
        record
        for record in planned_bench(folder).records
        if record.method == spec.method
        and record.result is not None
        and record.table_key.phase == spec.phase
        and has_setting(record, spec.setting)
    ]


def _cell(metric: str, records: Sequence[Record]) -> SurfaceCell:
    results = {record.run.seed: record.result or {} for record in records}
    return SurfaceCell({seed: value_of(results[seed], metric) for seed in sorted(results)}, resolution_of(results.values(), metric))


def surfaces_csv(drawn: Iterable[Drawn]) -> bytes:
    """A row a cell, as numbers."""
    return as_csv(pd.DataFrame([row for one in drawn for row in _numbers(one)], columns=list(COLUMNS)))


def _numbers(one: Drawn) -> Iterator[dict[str, Any]]:
    spec, standings = one.spec, one.standings()
    for row, column in one.surface.keys:
        cell = one.surface.cells[row, column]
        low, high = cell.interval
        yield {
            "surface": spec.name,
            "metric": spec.metric,
            "row_axis": spec.rows,
            "row": row,
            "column_axis": spec.columns,
            "column": column,
            "n": len(cell.values),
            "planned": one.planned,
            "mean": cell.mean,
            "sd": cell.sd,
            "low": low,
            "high": high,
            "standing": standings.get((row, column)),
        }


def surface_frame(one: Drawn) -> pd.DataFrame:
    """A surface for a reader: one row per value of the first axis, cells as `mean ± half the interval`."""
    surface, head = one.surface, f"{one.spec.rows} / {one.spec.columns}"
    rows = [
        {head: value_words(row), **{value_words(column): _cell_text(one, (row, column)) for column in surface.columns}}
        for row in surface.rows
    ]
    return pd.DataFrame(rows, columns=[head, *map(value_words, surface.columns)], dtype=object)


def _cell_text(one: Drawn, key: Key) -> str:
    """`74.2 ± 3.1`, with the number of seeds where it is not the planned one."""
    cell = one.surface.cells.get(key)
    if cell is None:
        return ""
    digits = 1 if is_count(one.spec.metric) else 2
    low, high = cell.interval
    spread = "" if math.isnan(low) else f" ± {(high - low) / 2:.{digits}f}"
    few = "" if len(cell.values) == one.planned else f" (n = {len(cell.values)})"
    return f"{cell.mean:.{digits}f}{spread}{few}"


def surface_lines(one: Drawn) -> list[str]:
    """A surface as Markdown: its name, what it shows, its table with the best cells in bold."""
    lines = [f"## {markdown_text(one.spec.name)}", ""]
    if one.reason:
        return [*lines, f"Not measured: {markdown_text(one.reason)}."]
    surface, standings, frame = one.surface, one.standings(), surface_frame(one)
    lines += [f"| {' | '.join(map(markdown_text, frame.columns))} |", "|" + " --- |" * len(frame.columns)]
    for row, cells in zip(surface.rows, frame.itertuples(index=False), strict=True):
        texts = [markdown_text(cells[0])]
        for column, text in zip(surface.columns, cells[1:], strict=True):
            texts.append(f"**{markdown_text(text)}**" if (row, column) in standings else markdown_text(text))
        lines.append(f"| {' | '.join(texts)} |")
    return [*lines, "", _caption(one)]


def _caption(one: Drawn) -> str:
    spec = one.spec
    unit = "" if is_count(spec.metric) else ", accuracies and shares in per cent"
    where = {"table": "", "rows": " of its row", "columns": " of its column"}[spec.best]
    better = "fewest or lowest" if lower_is_better(spec.metric) else "highest"
    return (
        f"{markdown_text(spec.metric)} of {spec.method}{unit}: mean ± half of the 95 % interval by Student's t over {one.planned} "
        f"seeds. Bold: the best mean{where} ({better}), and every one whose difference to it, seed by seed, has a 95 % interval that "
        f"includes 0."
    )
