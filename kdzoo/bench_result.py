"""What `kdzoo.bench` returns: its leaderboard as a frame, which a notebook shows as the table that a reader sees."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pandas as pd

from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.html import as_html
from kdzoo.suite.report.leaderboard import leaderboard_frame


class BenchResult(pd.DataFrame):
    """The leaderboard of a bench: one row a method at its chosen setting, accuracies as shares.

    It is a DataFrame like any other, and whatever is made from it (rows, columns, a copy) is a plain one. `attrs` say in which
    `folder` everything lies and which runs `failed`, by id with the reason. As the last line of a notebook's cell it shows
    the verdict and the tables of `kdzoo leaderboard`, unless it was changed in place.
    """

    _bench: BenchRecords

    def __init__(self, bench: BenchRecords, failed: Mapping[str, str]) -> None:
        super().__init__(leaderboard_frame(bench))  # type: ignore[call-arg]  # which the stubs declare for __new__ alone
        self.attrs = {"folder": str(bench.folder), "failed": dict(failed)}
        object.__setattr__(self, "_bench", bench)  # pandas takes an attribute for a column

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        board = leaderboard_frame(self._bench)
        return as_html(self._bench, board) if board.equals(pd.DataFrame(self)) else super()._repr_html_()  # type: ignore[misc]  # not in the stubs

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the plain frame, whose reader needs no kdzoo."""
        return copy.copy, (copy.copy(self),)
