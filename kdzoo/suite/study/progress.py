"""How much of a study has been measured, read off its folder. Free of torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from kdzoo.files import read_file
from kdzoo.suite.study.study import Study
from kdzoo.suite.study.verdicts import BY_MEAN, REACHED

TABLE = "results.csv"
PAPERS = "papers"
"""the folder of studies below that of all benches"""


@dataclass(frozen=True)
class StudyProgress:
    """What a study's folder holds: how many runs are planned there and done, how many of its numbers all seeds have a value for.

    reached: of how many of these numbers the mean lies within the tolerance.
    """

    planned: int
    done: int
    measured: int
    reached: int

    def words(self, runs: int, numbers: int) -> str:
        """`5 of 11 reached`, `part: 3 of 30 runs` or `no`, of a study of so many numbers that trains so many runs at the most."""
        if not self.done:
            return "no"
        if numbers and self.measured == numbers:
            return f"{self.reached} of {numbers} reached"
        if self.done < (total := max(runs, self.planned) if numbers else self.planned):
            return f"part: {self.done:,} of {total:,} runs"
        return f"part: {self.measured} of {numbers} numbers" if numbers else "yes"


def study_folder(results: Path, name: str) -> Path:
    """Where a study's stages and its table lie."""
    return results / PAPERS / name


def read_progress(study: Study, folder: Path) -> StudyProgress:
    """How far a study is whose stages lie in a folder; nothing where there is none."""
    runs = [folder / stage.name / "runs" for stage in study.benches]
    planned, done = (sum(len(list(place.glob(f"*/{file}"))) for place in runs) for file in ("run.json", "result.json"))
    verdicts = _verdicts(folder / TABLE, {one.name for one in study.measured()})
    return StudyProgress(planned, done, len(verdicts), sum(verdict in (REACHED, BY_MEAN) for verdict in verdicts))


def _verdicts(table: Path, names: Container[str]) -> list[str]:
    """Whether each number of these names in a study's table is reached, of those that every seed has a value for."""
    try:
        rows = [row for row in csv.DictReader(io.StringIO(read_file(table).decode())) if row["measure"] in names]
        return [row["reached"] for row in rows if row["mean"] and float(row["n"]) >= float(row["planned"])]
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or another version's
        return []
