"""The results of a study, written beside its runs: README.md, results.csv and surfaces.csv."""

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
from kdzoo.suite.study.race_table import race_tables
from kdzoo.suite.study.stages import planned_bench
from kdzoo.suite.study.study import Study
from kdzoo.suite.study.surface_table import FILE as SURFACES
from kdzoo.suite.study.surface_table import Drawn, draw_all, surfaces_csv

TABLE, PAGE = "results.csv", "README.md"


@dataclass(frozen=True)
class Evidence:
    """The results of a study: its numbers and its surfaces."""

    measured: tuple[Measured, ...]
    surfaces: tuple[Drawn, ...] = ()


def write_evidence(study: Study, given: str, folder: Path) -> Evidence:
    """Write README.md and results.csv, and surfaces.csv where it has surfaces, of a study from its runs alone, byte for byte the same.

    given: what `kdzoo reproduce` was given, a name or a file; the page names the command.
    """
    measured = measure_all(study, folder)
    drawn, races = draw_all(study, folder), race_tables(study, folder)
    frames = [evidence_frame(measured), *(table.frame for table in races if len(table.frame))]
    write_bytes(folder / TABLE, as_csv(frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)))
    if drawn:
        write_bytes(folder / SURFACES, surfaces_csv(drawn))
    notes = [(stage.name, note) for stage in study.benches for note in _notes(folder / stage.name)]
    write_bytes(folder / PAGE, page(study, given, measured, drawn, races, notes).encode())
    return Evidence(measured, drawn)


def _notes(folder: Path) -> tuple[str, ...]:
    """What a bench has to tell of its runs, such as students of two trainings of one teacher."""
    return planned_bench(folder).portable_notes if (folder / "runs").is_dir() else ()
