"""One table before it is numbers: the settings that stand in it, which of them are healthy, and their error model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.suite.plan.config import KD, NONE
from kdzoo.suite.report.error_model import ErrorModel, model_of
from kdzoo.suite.report.records import Record, TableKey
from kdzoo.suite.report.rules import common_seeds
from kdzoo.suite.report.selection import Candidate
from kdzoo.suite.report.settings import setting_text
from kdzoo.tasks.task import Metric
from kdzoo.text import number_of

TEACHER = "teacher"


HEAD = ("pair", "data", "recipe", "epochs", "phase")


CONTROLS = {"kd": KD, "alone": NONE}
"""the row that each family of comparisons is made with, by the word for it in column names"""


@dataclass(frozen=True)
class Standing:
    """A setting that stands in a table, among how many of its method it was chosen, and why it is collapsed if it is."""

    candidate: Candidate
    tried: int
    collapsed: str | None = None

    @property
    def record(self) -> Record:
        return self.candidate.records[0]

    @property
    def setting(self) -> str:
        """Its coefficients in words, such as `T=4 alpha=0.9`; empty at the published ones of a method without such words."""
        return setting_text(self.record.run, self.record.about)

    @property
    def done(self) -> tuple[Record, ...]:
        return self.candidate.done

    @property
    def metric(self) -> Metric:
        """The headline of its task."""
        return self.record.task.headline

    @cached_property
    def values(self) -> Mapping[int, float]:
        """The headline on the test images after the last epoch, by seed."""
        name = self.metric.name
        return {record.run.seed: test[name] for record in self.done if (test := record.last_epoch_metrics("test")) is not None}

    @cached_property
    def images(self) -> int:
        """How many images its runs were tested on."""
        return min(int(test["n"]) for record in self.done if (test := record.last_epoch_metrics("test")) is not None)

    @property
    def resolution(self) -> float:
        """What one test image makes of a value; equal values differ by less than that."""
        return 1 / self.images if self.metric.per_sample else 0.0

    @cached_property
    def mean(self) -> float:
        return float(np.mean(list(self.values.values())))


@dataclass(frozen=True)
class Block:
    """One table: runs that may be compared with each other, and the settings that stand in it.

    searched: the runs of a search within a budget in which its settings were chosen, its own or its sweep's; none where every setting
    was trained to the end.
    recipe: its name, with what tells this table from others of the same names, such as `smoke, recipe.lr=0.05`.
    """

    table_key: TableKey
    recipe: str
    records: tuple[Record, ...]
    standings: tuple[Standing, ...]
    searched: tuple[Record, ...] = ()

    @property
    def metric(self) -> Metric:
        """What its rows are compared by: the headline of their task."""
        return self.records[0].task.headline

    @property
    def head(self) -> dict[str, Any]:
        """The columns that say which table a row belongs to."""
        return {name: self.recipe if name == "recipe" else getattr(self.table_key, name) for name in HEAD}

    @property
    def title(self) -> str:
        key = self.table_key
        return f"{key.pair} on {key.data}, {self.recipe} ({number_of(key.epochs, 'epoch')}), {key.phase}"

    def only(self, method: str) -> Standing | None:
        """A control's chosen setting; None where it is not there, not done, or where nothing could be chosen."""
        return only_one([standing for standing in self.standings if standing.record.method == method])

    @cached_property
    def healthy(self) -> tuple[Standing, ...]:
        """The settings that are done, in part at least, and not collapsed."""
        return tuple(standing for standing in self.standings if standing.done and standing.collapsed is None)

    @cached_property
    def compared(self) -> tuple[Standing, ...]:
        """The healthy settings that statistics are made with: those of two seeds or more, or all where none has a second seed."""
        return tuple(standing for standing in self.healthy if self.has_one_seed or len(standing.done) > 1)

    @cached_property
    def model(self) -> ErrorModel | None:
        """The errors of the settings that are compared, in their order; None where there is none."""
        resolution = max((standing.resolution for standing in self.compared), default=0.0)
        return model_of([standing.values for standing in self.compared], resolution) if self.compared else None

    @cached_property
    def common_seeds(self) -> frozenset[int]:
        """The seeds that the ranks of this table are made on (`rules.common_seeds`)."""
        return common_seeds([standing.values.keys() for standing in self.healthy])

    @cached_property
    def comparable(self) -> tuple[Standing, ...]:
        """The healthy settings that have all the common seeds; none where there is no common seed."""
        return tuple(s for s in self.healthy if self.common_seeds and self.common_seeds <= s.values.keys())

    @cached_property
    def ranked(self) -> tuple[Standing, ...]:
        """The settings that have a rank: those on two common seeds or more. One seed ranks nothing, nor does one row."""
        return self.comparable if len(self.common_seeds) > 1 and len(self.comparable) > 1 else ()

    def common_mean(self, standing: Standing) -> float:
        """The mean headline of a comparable setting over the common seeds."""
        return float(np.mean([standing.values[seed] for seed in sorted(self.common_seeds)]))

    @cached_property
    def has_one_seed(self) -> bool:
        """Whether no setting has a second seed: differences are then as large as chance, and nothing says how large that is."""
        return all(len(standing.done) <= 1 for standing in self.standings)

    def rows_of(self, board: pd.DataFrame) -> pd.DataFrame:
        """The rows of a leaderboard that belong to this table."""
        return board[(board[list(HEAD)] == pd.Series(self.head)).all(axis="columns")]


def labels(blocks: Sequence[Block]) -> list[str]:
    """What tells tables of one bench apart, as briefly as it goes: the pair, with its phase, or the whole title."""
    forms: tuple[Callable[[Block], str], ...] = (
        lambda block: block.table_key.pair,
        lambda block: f"{block.table_key.pair}, {block.table_key.phase}",
    )
    for form in forms:
        names = [form(block) for block in blocks]
        if len(set(names)) == len(names):
            return names
    return [block.title for block in blocks]


def only_one(standings: Sequence[Standing]) -> Standing | None:
    done = [standing for standing in standings if standing.done]
    return done[0] if len(done) == 1 else None


def position_of(standings: Sequence[Standing], standing: Standing | None) -> int | None:
    return next((at for at, other in enumerate(standings) if other is standing), None)
