"""A surface: the values of one metric over two axes of settings, and which cells the same seeds tell apart. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdzoo.errors import InputError
from kdzoo.suite.report.axes import Among, in_order, value_on
from kdzoo.suite.report.error_model import sample_sd
from kdzoo.suite.report.intervals import mean_interval
from kdzoo.suite.report.records import Record

BEST, ALIKE = "best", "not told apart from the best"

Key = tuple[Any, Any]
"""where a cell is: the values of the row's and of the column's axis"""


@dataclass(frozen=True)
class SurfaceCell:
    """The values of a metric by seed at one place, and what one image makes of one: equal values differ by less than that."""

    values: Mapping[int, float]
    resolution: float

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.values.values())))

    @property
    def sd(self) -> float:
        """The sample standard deviation over seeds; NaN for one seed."""
        return sample_sd(list(self.values.values()))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean by Student's t; NaN for one seed."""
        return mean_interval(list(self.values.values()), self.resolution)

    def is_like(self, other: SurfaceCell) -> bool:
        """Whether the 95 % interval of the differences, seed by seed, includes 0; false where they share fewer than two seeds."""
        seeds = sorted(set(self.values) & set(other.values))
        if len(seeds) < 2:
            return False
        differences = [self.values[seed] - other.values[seed] for seed in seeds]
        low, high = mean_interval(differences, max(self.resolution, other.resolution))
        return low <= 0 <= high


@dataclass(frozen=True)
class Surface:
    """The cells of a metric by their places. lower_is_better: whether less of it is better."""

    cells: Mapping[Key, SurfaceCell]
    lower_is_better: bool = False

    @property
    def rows(self) -> list[Any]:
        return sorted({row for row, _ in self.cells}, key=in_order)

    @property
    def columns(self) -> list[Any]:
        return sorted({column for _, column in self.cells}, key=in_order)

    @property
    def keys(self) -> list[Key]:
        """The places of its cells, row by row."""
        return [(row, column) for row in self.rows for column in self.columns if (row, column) in self.cells]

    def standings(self, among: Among) -> dict[Key, str]:
        """The best cell of the table, or of each row or column, and those that the same seeds do not tell apart from it.

        Nothing is said where the best cell has one seed: nothing is known of how far it is from the others.
        """
        standing_of: dict[Key, str] = {}
        for group in self._groups(among):
            # of equal ones the first, whatever the ids of their runs
            best = min(group, key=lambda key: (self._badness(self.cells[key].mean), *map(in_order, key)))
            if len(self.cells[best].values) < 2:
                continue
            standing_of[best] = BEST
            standing_of |= {key: ALIKE for key in group if key != best and self.cells[key].is_like(self.cells[best])}
        return standing_of

    def _badness(self, mean: float) -> float:
        return mean if self.lower_is_better else -mean

    def _groups(self, among: Among) -> Iterator[list[Key]]:
        if not self.cells:
            return
        if among == "table":
            yield list(self.cells)
        elif among == "rows":
            yield from ([key for key in self.cells if key[0] == row] for row in self.rows)
        else:
            yield from ([key for key in self.cells if key[1] == column] for column in self.columns)


def runs_by_place(records: Iterable[Record], rows: str, columns: str) -> dict[Key, list[Record]]:
    """Runs by their values on two axes; raises InputError where one place holds runs of several settings or pairs."""
    runs: dict[Key, list[Record]] = {}
    for record in records:
        runs.setdefault((value_on(rows, record), value_on(columns, record)), []).append(record)
    for (row, column), there in runs.items():
        kinds = {(record.setting_key, record.table_key) for record in there}
        if len(kinds) > 1:
            where = f"{rows} {row} and {columns} {column}"
            raise InputError(f"{len(kinds)} settings or pairs have {where}; name the one that is meant in setting, or another axis")
    return runs
