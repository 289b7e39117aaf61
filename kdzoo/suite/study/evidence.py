"""The results of a study, written beside its runs: README.md and results.csv, and surfaces.csv, order.csv and gains.csv."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kdzoo.runs.atomic import write_bytes
from kdzoo.suite.report.table_files import as_csv
from kdzoo.suite.study.evidence_page import page
from kdzoo.suite.study.evidence_table import evidence_frame
from kdzoo.suite.study.measured import Measured
from kdzoo.suite.study.measuring import measure_all
from kdzoo.suite.study.order_table import GAINS, ORDER, OrderTables, order_tables
from kdzoo.suite.study.progress import TABLE
from kdzoo.suite.study.race_table import race_tables
from kdzoo.suite.study.stages import planned_bench
from kdzoo.suite.study.study import Study
from kdzoo.suite.study.surface_table import FILE as SURFACES
from kdzoo.suite.study.surface_table import Drawn, draw_all, surfaces_csv

PAGE = "README.md"


@dataclass(frozen=True)
class Evidence:
    """The results of a study: its numbers, its surfaces, and the tables that it sets beside each other."""

    measured: tuple[Measured, ...]
    surfaces: tuple[Drawn, ...] = ()
    order: OrderTables | None = None

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the CSV files that stand beside its page."""
        return (TABLE, *((SURFACES,) if self.surfaces else ()), *((ORDER, GAINS) if self.order else ()))


def write_evidence(study: Study, name_or_file: str, folder: Path) -> Evidence:
    """Write README.md, results.csv and the files of its surfaces and order, of a study from its runs alone, byte for byte the same.

    name_or_file: how `kdzoo reproduce` was asked for the study; the page names the command.
    """
    measured = measure_all(study, folder)
    drawn, races = draw_all(study, folder), race_tables(study, folder)
    frames = [evidence_frame(measured), *(table.frame for table in races if len(table.frame))]
    write_bytes(folder / TABLE, as_csv(frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)))
    if drawn:
        write_bytes(folder / SURFACES, surfaces_csv(drawn))
    order = order_tables(study, folder)
    if order is not None:
        write_bytes(folder / ORDER, as_csv(order.order_frame()))
        write_bytes(folder / GAINS, as_csv(order.gains_frame()))
    benches = {stage.name: planned_bench(folder / stage.name) for stage in study.benches if (folder / stage.name / "runs").is_dir()}
    write_bytes(folder / PAGE, page(study, name_or_file, measured, drawn, races, order, benches).encode())
    return Evidence(measured, drawn, order)
