"""What a page and its charts are made of: the very frames of leaderboard.csv and runs.csv, and those of single charts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from kdzoo.suite.page.frames.board import agreement_frame, forest_frame, pareto_frame
from kdzoo.suite.page.frames.classes import class_frame
from kdzoo.suite.page.frames.curves import Curves, read_curves
from kdzoo.suite.page.frames.reliability import reliability_frame
from kdzoo.suite.page.frames.sweeps import sweep_frame
from kdzoo.suite.report.bench import BenchRecords, read_bench
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.tasks.task import Metric


@dataclass(frozen=True)
class BenchTables:
    """A bench's frames, each made when it is first asked for. board is that of leaderboard.csv, runs that of runs.csv."""

    bench: BenchRecords

    @property
    def metric(self) -> Metric:
        """The headline of the bench's task."""
        return self.bench.task.headline

    @cached_property
    def validated(self) -> bool:
        """Whether settings are chosen on images that were held out."""
        return any(standing.candidate.validated for block in self.bench.blocks for standing in block.standings)

    @cached_property
    def board(self) -> pd.DataFrame:
        return leaderboard_frame(self.bench)

    @cached_property
    def sweeps(self) -> pd.DataFrame:
        return sweep_frame(self.bench)

    @cached_property
    def curves(self) -> Curves:
        return read_curves(self.bench)

    @cached_property
    def forest(self) -> pd.DataFrame:
        return forest_frame(self.bench, self.board)

    @cached_property
    def pareto(self) -> pd.DataFrame:
        return pareto_frame(self.bench, self.board)

    @cached_property
    def agreement(self) -> pd.DataFrame:
        return agreement_frame(self.bench, self.board)

    @cached_property
    def classes(self) -> pd.DataFrame:
        return class_frame(self.bench)

    @cached_property
    def reliability(self) -> pd.DataFrame:
        return reliability_frame(self.bench)


def tables_of(folder: Path) -> BenchTables:
    """The tables of a bench's folder; raises InputError where it is none."""
    return BenchTables(read_bench(folder))
