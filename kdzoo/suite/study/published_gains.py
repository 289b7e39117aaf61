"""What published tables say a method gains over plain KD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from kdzoo.suite.plan.config import KD
from kdzoo.suite.report.published import TASK, Published, published
from kdzoo.tasks.task import Metric
from kdzoo.text import format_number, number_of

CRD_TABLE = "crd"


@dataclass(frozen=True)
class Gain:
    """Published differences of a method to plain KD on CRD's pairs, in points: their mean and range, and from which tables."""

    pairs: int
    mean: float
    least: float
    most: float
    tables: tuple[str, ...]

    def __str__(self) -> str:
        spread = f" [{format_number(self.least, '+.2f')}, {format_number(self.most, '+.2f')}]" if self.pairs > 1 else ""
        return f"{format_number(self.mean, '+.2f')}{spread} ({number_of(self.pairs, 'pair')}: {', '.join(self.tables)})"


@cache
def known_gains(metric: Metric) -> Mapping[str, Gain]:
    """`published_gains` of every table that comes with kdzoo; none of another metric than these tables have."""
    return published_gains(published()) if metric is TASK.headline else {}


def published_gains(rows: Sequence[Published]) -> dict[str, Gain]:
    """Every method's published differences to plain KD on CRD's pairs, each pair's mean over the tables that have both.

    A table without plain KD on a pair is compared with CRD's own number. Numbers copied from earlier tables do not count.
    """
    pairs = {row.pair for row in rows if row.table == CRD_TABLE}
    on_crds_pairs = [row for row in rows if row.pair in pairs and row.data == "cifar100"]
    kd = {(row.table, row.pair): row.value for row in on_crds_pairs if row.method == KD}
    by_method: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for row in on_crds_pairs:
        base = kd.get((row.table, row.pair), kd.get((CRD_TABLE, row.pair)))
        if base is not None and row.run_by != "copied":
            by_method.setdefault(row.method, {}).setdefault(row.pair, []).append((row.table, row.value - base))
    gains: dict[str, Gain] = {}
    for method, of_pairs in by_method.items():
        means = [float(np.mean([gain for _, gain in values])) for values in of_pairs.values()]
        tables = dict.fromkeys(sorted(table for values in of_pairs.values() for table, _ in values))
        gains[method] = Gain(len(means), float(np.mean(means)), min(means), max(means), tuple(tables))
    return gains
