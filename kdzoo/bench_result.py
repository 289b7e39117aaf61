"""What `kdzoo.bench` returns: its leaderboard as a frame, which a notebook shows as the table that a reader sees."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from kdzoo.runs.output_files import write_output
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.suite.report.notebook import as_html

FRAME_HEIGHT = "50em"


@dataclass(frozen=True)
class ReportPage:
    """The page of a bench in a file, which a notebook shows in a frame of the cell's output."""

    path: Path

    def _repr_html_(self) -> str:
        page = escape(self.path.read_text(encoding="utf-8"))
        frame = f'<iframe srcdoc="{page}" title="report" style="width: 100%; height: {FRAME_HEIGHT}; border: 0"></iframe>'
        return f"<p><code>{escape(str(self.path))}</code></p>{frame}"


class BenchResult(pd.DataFrame):
    """The leaderboard of a bench: one row a method at its chosen setting, accuracies as shares.

    It is a DataFrame like any other, and whatever is made from it (rows, columns, a copy) is a plain one. `attrs` say in which
    `folder` everything lies and which runs `failed`, by id with the reason. As the last line of a notebook's cell it shows
    the verdict and the tables of `kdzoo leaderboard`, unless it was changed in place; `report` makes the page of `kdzoo report`.
    """

    _bench: BenchRecords

    def __init__(self, bench: BenchRecords, failed: Mapping[str, str]) -> None:
        super().__init__(leaderboard_frame(bench))  # type: ignore[call-arg]  # which the stubs declare for __new__ alone
        self.attrs = {"folder": str(bench.folder), "failed": dict(failed)}
        object.__setattr__(self, "_bench", bench)  # pandas takes an attribute for a column

    def report(self, path: str | Path = "report.html") -> ReportPage:
        """Write the bench's page, as `kdzoo report` does: one file that opens without a network. A notebook shows it.

        The page is made of the bench's folder as it is now.
        """
        from kdzoo.suite.page.build import build_page  # here, since charts take a second to import

        page = ReportPage(Path(path))
        write_output(page.path, build_page([self._bench.folder]).encode())
        return page

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        board = leaderboard_frame(self._bench)
        return as_html(self._bench, board) if board.equals(pd.DataFrame(self)) else super()._repr_html_()  # type: ignore[misc]  # not in the stubs

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the plain frame, whose reader needs no kdzoo."""
        return copy.copy, (copy.copy(self),)
