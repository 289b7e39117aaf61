"""The tables of a bench as files, rebuilt from its run folders alone, byte for byte the same."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kdzoo.runs.store import write_bytes
from kdzoo.suite.report.bench import BenchRecords, read_bench
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.suite.report.markdown import as_markdown
from kdzoo.suite.report.runs_table import runs_frame
from kdzoo.text import csv_text


def write_tables(folder: Path) -> tuple[pd.DataFrame, BenchRecords]:
    """Rebuild runs.csv, leaderboard.csv and leaderboard.md from the run folders; the leaderboard and what it is from."""
    bench = read_bench(folder)
    board = leaderboard_frame(bench)
    write_bytes(folder / "runs.csv", as_csv(runs_frame(bench)))
    write_bytes(folder / "leaderboard.csv", as_csv(board))
    write_bytes(folder / "leaderboard.md", as_markdown(bench, board).encode())
    return board, bench


def as_csv(frame: pd.DataFrame) -> bytes:
    """A frame as CSV: ten significant digits, empty where there is no value, one kind of line end, no formulas."""
    harmless = frame.map(lambda cell: csv_text(cell) if isinstance(cell, str) else cell)
    return str(harmless.to_csv(index=False, float_format="%.10g", lineterminator="\n")).encode()
