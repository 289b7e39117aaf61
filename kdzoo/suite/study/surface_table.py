"""The surfaces of a study as tables, from the folders of its runs alone."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.errors import InputError
from kdzoo.suite.plan.refit import refit_seeds
from kdzoo.suite.report.error_model import sample_sd
from kdzoo.suite.report.intervals import mean_interval
from kdzoo.suite.report.records import Record
from kdzoo.suite.report.table_files import as_csv
from kdzoo.suite.study.metrics import is_count, lower_is_better, resolution_of, value_of
from kdzoo.suite.study.stages import has_setting, planned_bench
from kdzoo.suite.study.study import Study
from kdzoo.suite.study.surface import Surface, value_on
from kdzoo.text import markdown_text

FILE = "surfaces.csv"
BEST, ALIKE = "best", "not told apart from the best"
COLUMNS = ("surface", "metric", "row_axis", "row", "column_axis", "column", "n", "planned", "mean", "sd", "low", "high", "standing")

Key = tuple[Any, Any]
"""where a cell is: the values of the row's and of the column's axis"""


@dataclass(frozen=True)
class CellOfSurface:
    """The values of a cell by seed, and what one test image makes of one."""

    values: Mapping[int, float]
    resolution: float

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.values.values())))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean by Student's t; NaN for one seed."""
        return mean_interval(list(self.values.values()), self.resolution)


@dataclass(frozen=True)
class Drawn:
    """A surface with its cells; why it has none in `reason`. planned: how many seeds a cell has once all are done."""

    surface: Surface
    cells: Mapping[Key, CellOfSurface]
    planned: int
    reason: str = ""

    @property
    def rows(self) -> list[Any]:
        return sorted({row for row, _ in self.cells}, key=_in_order)

    @property
    def columns(self) -> list[Any]:
        return sorted({column for _, column in self.cells}, key=_in_order)

    def standings(self) -> dict[Key, str]:
        """The best cell of each group that the surface compares, and those that the same seeds do not tell apart from it.

        Nothing is said of a group whose best cell has one seed: nothing is known of how far it is from the others.
        """
        standing_of: dict[Key, str] = {}
        for group in self._groups():
            # of equal ones the first, whatever the ids of their runs
            best = min(group, key=lambda key: (self._badness(self.cells[key].mean), *map(_in_order, key)))
            if len(self.cells[best].values) < 2:
                continue
            standing_of[best] = BEST
            standing_of |= {key: ALIKE for key in group if key != best and self._alike(key, best)}
        return standing_of

    def _badness(self, mean: float) -> float:
        return mean if lower_is_better(self.surface.metric) else -mean

    def _alike(self, key: Key, best: Key) -> bool:
        """Whether the 95 % interval of the differences, seed by seed, includes 0; false where they share fewer than two seeds."""
        one, other = self.cells[key], self.cells[best]
        seeds = sorted(set(one.values) & set(other.values))
        if len(seeds) < 2:
            return False
        low, high = mean_interval([one.values[seed] - other.values[seed] for seed in seeds], max(one.resolution, other.resolution))
        return low <= 0 <= high

    def _groups(self) -> Iterator[list[Key]]:
        if self.surface.best == "table":
            yield list(self.cells)
        elif self.surface.best == "rows":
            yield from ([key for key in self.cells if key[0] == row] for row in self.rows)
        else:
            yield from ([key for key in self.cells if key[1] == column] for column in self.columns)


def _in_order(value: Any) -> list[tuple[int, float, str]]:
    """Numbers by size, and numbers within words too: `mlp_30_30` stands before `mlp_100_100`."""
    if isinstance(value, int | float):
        return [(0, float(value), "")]
    parts = re.split(r"(\d+(?:\.\d+)?)", str(value))
    return [(0, float(part), "") if at % 2 else (1, 0.0, part) for at, part in enumerate(parts)]


def draw_all(study: Study, folder: Path) -> tuple[Drawn, ...]:
    """Every surface of a study, as far as its runs are done."""
    return tuple(_drawn(study, surface, folder) for surface in study.surfaces)


def _drawn(study: Study, surface: Surface, folder: Path) -> Drawn:
    stage = study.stage(surface.stage)
    config = study.config(stage)
    planned = len(refit_seeds(surface.method, config) if surface.phase == "refit" else config.seeds_for(surface.method))
    try:
        return Drawn(surface, _cells(surface, folder / stage.name), planned)
    except InputError as error:
        return Drawn(surface, {}, planned, "; ".join(error.problems))


def _cells(surface: Surface, folder: Path) -> dict[Key, CellOfSurface]:
    """The cells of a surface; raises InputError where there is no run, or where a cell holds runs of several settings."""
    runs: dict[Key, list[Record]] = {}
    if (folder / "runs").is_dir():
        for record in _of_method(surface, folder):
            runs.setdefault((value_on(surface.rows, record), value_on(surface.columns, record)), []).append(record)
    if not runs:
        raise InputError(f"{surface.method}: no finished run")
    for (row, column), records in runs.items():
        kinds = {(record.setting_key, record.place) for record in records}
        if len(kinds) > 1:
            where = f"{surface.rows} {row} and {surface.columns} {column}"
            raise InputError(f"{len(kinds)} settings or pairs have {where}; name the one that is meant in setting, or another axis")
    return {key: _cell(surface.metric, records) for key, records in runs.items()}


def _of_method(surface: Surface, folder: Path) -> list[Record]:
    """The finished runs of a surface's method, at its setting."""
    return [
        record
        for record in planned_bench(folder).records
        if record.method == surface.method
        and record.result is not None
        and record.place.phase == surface.phase
        and has_setting(record, surface.setting)
    ]


def _cell(metric: str, records: Sequence[Record]) -> CellOfSurface:
    results = {record.run.seed: record.result or {} for record in records}
    return CellOfSurface({seed: value_of(results[seed], metric) for seed in sorted(results)}, resolution_of(results.values(), metric))


def surfaces_csv(drawn: Iterable[Drawn]) -> bytes:
    """A row a cell, as numbers."""
    return as_csv(pd.DataFrame([row for one in drawn for row in _numbers(one)], columns=list(COLUMNS)))


def _numbers(one: Drawn) -> Iterator[dict[str, Any]]:
    surface, standings = one.surface, one.standings()
    for row, column in ((row, column) for row in one.rows for column in one.columns if (row, column) in one.cells):
        cell = one.cells[row, column]
        low, high = cell.interval
        yield {
            "surface": surface.name,
            "metric": surface.metric,
            "row_axis": surface.rows,
            "row": row,
            "column_axis": surface.columns,
            "column": column,
            "n": len(cell.values),
            "planned": one.planned,
            "mean": cell.mean,
            "sd": sample_sd(list(cell.values.values())),
            "low": low,
            "high": high,
            "standing": standings.get((row, column)),
        }


def surface_frame(one: Drawn) -> pd.DataFrame:
    """A surface for a reader: a row a value of the first axis, cells as `mean ± half the interval`."""
    head = f"{one.surface.rows} / {one.surface.columns}"
    rows = [{head: _word(row), **{_word(column): _cell_text(one, (row, column)) for column in one.columns}} for row in one.rows]
    return pd.DataFrame(rows, columns=[head, *map(_word, one.columns)], dtype=object)


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _cell_text(one: Drawn, key: Key) -> str:
    """`74.2 ± 3.1`, with the number of seeds where it is not the planned one."""
    cell = one.cells.get(key)
    if cell is None:
        return ""
    digits = 1 if is_count(one.surface.metric) else 2
    low, high = cell.interval
    spread = "" if math.isnan(low) else f" ± {(high - low) / 2:.{digits}f}"
    few = "" if len(cell.values) == one.planned else f" (n = {len(cell.values)})"
    return f"{cell.mean:.{digits}f}{spread}{few}"


def surface_lines(one: Drawn) -> list[str]:
    """A surface as Markdown: its name, what it shows, its table with the best cells in bold."""
    surface, standings = one.surface, one.standings()
    lines = [f"## {markdown_text(surface.name)}", ""]
    if one.reason:
        return [*lines, f"Not measured: {markdown_text(one.reason)}."]
    frame = surface_frame(one)
    lines += [f"| {' | '.join(map(markdown_text, frame.columns))} |", "|" + " --- |" * len(frame.columns)]
    for row, cells in zip(one.rows, frame.itertuples(index=False), strict=True):
        texts = [markdown_text(cells[0])]
        for column, text in zip(one.columns, cells[1:], strict=True):
            texts.append(f"**{markdown_text(text)}**" if (row, column) in standings else markdown_text(text))
        lines.append(f"| {' | '.join(texts)} |")
    return [*lines, "", _caption(one)]


def _caption(one: Drawn) -> str:
    surface = one.surface
    unit = "" if is_count(surface.metric) else ", accuracies and shares in per cent"
    where = {"table": "", "rows": " of its row", "columns": " of its column"}[surface.best]
    better = "fewest or lowest" if lower_is_better(surface.metric) else "highest"
    return (
        f"{markdown_text(surface.metric)} of {surface.method}{unit}: mean ± half of the 95 % interval by Student's t over {one.planned} "
        f"seeds. Bold: the best mean{where} ({better}), and every one whose difference to it, seed by seed, has a 95 % interval that "
        f"includes 0."
    )
