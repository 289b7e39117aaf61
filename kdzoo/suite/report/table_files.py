"""The tables of a bench as files, rebuilt from its run folders alone, byte for byte the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from kdzoo.errors import InputError
from kdzoo.garbage import uncollected
from kdzoo.runs.atomic import write_bytes
from kdzoo.runs.locks import file_lock
from kdzoo.runs.store import KnownRun, Store
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.plan.starts import RUNS
from kdzoo.suite.report.bench import BenchRecords, read_bench
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.suite.report.markdown import as_markdown
from kdzoo.suite.report.runs_table import runs_frame
from kdzoo.text import csv_text


class Tables(NamedTuple):
    """The tables of a bench as they were written: its leaderboard, and the records that it is from."""

    board: pd.DataFrame
    bench: BenchRecords


TABLES_LOCK = ".tables.lock"
"""in a bench's folder: whoever holds it writes the tables"""


@dataclass
class BenchOutcome(Outcome):
    """How a bench ended, with its tables as they were written; None where nothing was left to do, so that none were."""

    tables: Tables | None = None


@uncollected()
def write_tables(folder: Path, known: Mapping[str, KnownRun] | None = None) -> Tables:
    """Rebuild runs.csv, leaderboard.csv and leaderboard.md from the run folders. known: runs that were read before.

    One process at a time: whoever writes last has read last, so that no table is replaced by one of fewer runs. Raises StoreError
    where they cannot be written, InputError where there are no runs: then nothing is written.
    """
    if not Store(folder).ids():
        raise InputError(f"{folder}: no runs, so that there are no tables (looked for {RUNS} in it)")
    with file_lock(folder / TABLES_LOCK):
        bench = read_bench(folder, known)
        board = leaderboard_frame(bench)
        write_bytes(folder / "runs.csv", as_csv(runs_frame(bench)))
        write_bytes(folder / "leaderboard.csv", as_csv(board))
        write_bytes(folder / "leaderboard.md", as_markdown(bench, board).encode())
    return Tables(board, bench)


def as_csv(frame: pd.DataFrame) -> bytes:
    """A frame as CSV: ten significant digits, empty where there is no value, one kind of line end, no formulas."""
    parts = [_as_csv(frame.iloc[first : first + ROWS], header=first == 0) for first in range(0, max(len(frame), 1), ROWS)]
    return "".join(parts).encode()


ROWS = 2000
"""laid out at a time, since all numbers of a large bench take more memory as texts than its runs do"""


def _as_csv(frame: pd.DataFrame, header: bool) -> str:
    harmless = frame.copy()
    for name, column in frame.items():
        if pd.api.types.is_float_dtype(column):  # a whole column at once: pandas asks of every number whether it is one
            harmless[name] = ["" if math.isnan(number) else f"{number:.10g}" for number in column.tolist()]
        elif not pd.api.types.is_numeric_dtype(column):
            texts = {cell: csv_text(cell) for cell in set(column) if isinstance(cell, str)}
            harmless[name] = [texts.get(cell, cell) for cell in column]
    return str(harmless.to_csv(index=False, header=header, lineterminator="\n"))
