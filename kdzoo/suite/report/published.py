"""Published numbers as data: one CSV a source, below `configs/published`. Free of torch."""

from __future__ import annotations

import csv
import io
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError

from kdzoo.errors import InputError, collect_problems, did_you_mean, problems_of, repeated, unknown
from kdzoo.files import CONFIGS, read_file
from kdzoo.runs.fields import Count, Number, Spec
from kdzoo.tasks.classification import CLASSIFICATION

FOLDER = CONFIGS / "published"
IMAGENET = "imagenet"
"""the name of a data set that kdzoo reads from a folder"""

TASK = CLASSIFICATION
"""what the networks of the published tables learn; the tables hold its headline, shares in per cent"""
HEADLINE = TASK.headline.name
PerCent = Annotated[Number, Field(gt=0, le=100)]
ALIASES = {"value": HEADLINE, "teacher": f"teacher_{HEADLINE}"}
"""the columns of a file whose names depend on the task, by the names they have here"""
NUMBERS = ("sd", *ALIASES.values())
COUNTS = ("epochs", "seeds")


class Published(Spec):
    """One number of a published table, with its protocol as far as the source states it; None where it does not.

    pair: `TEACHER/STUDENT` by kdzoo's names. printed: the method's name in the source. value, sd, teacher: per cent.
    epoch: whether the number is of the last epoch or of the best one on the test set. run_by: whether the source trained
    these runs itself or copied the number from an earlier table.
    """

    model_config = ConfigDict(alias_generator=lambda name: ALIASES.get(name, name))

    pair: str
    data: str
    method: str
    printed: str
    value: PerCent
    sd: Annotated[Number, Field(ge=0)] | None = None
    epoch: Literal["last", "best", "unknown"]
    epochs: Count | None = None
    seeds: Count | None = None
    teacher: PerCent | None = None
    run_by: Literal["source", "copied", "unknown"]
    source: str
    table: str
    """the name of the file"""

    @property
    def unstated(self) -> tuple[str, ...]:
        """The parts of the protocol that the source does not state."""
        parts = {"epochs": self.epochs is None, "which epoch": self.epoch == "unknown", "seeds": self.seeds is None}
        return tuple(name for name, missing in parts.items() if missing)


COLUMNS = tuple(field.alias or name for name, field in Published.model_fields.items() if name != "table")
OPTIONAL = tuple(field.alias or name for name, field in Published.model_fields.items() if not field.is_required())


def read_published(file: Path) -> tuple[Published, ...]:
    """The numbers of one CSV file; raises InputError with all of its faults, each with its line."""
    try:
        reader = csv.reader(io.StringIO(read_file(file).decode()))
        header, *lines = [(reader.line_num, cells) for cells in reader if cells] or [(1, [])]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: not a CSV file ({error})") from error
    problems = _faults_of_header(file, header[1])
    if problems:
        raise InputError(*problems)
    rows: list[Published] = []
    first: dict[tuple[str, ...], int] = {}
    for number, cells in lines:
        place = f"{file.name}:{number}"
        if len(cells) != len(header[1]):
            problems.append(f"{place}: expected {len(header[1])} cells, got {len(cells)}")
            continue
        with collect_problems(problems):
            row = _row(dict(zip(header[1], cells, strict=True)), file.stem, place)
            key = (row.pair, row.data, row.method, row.printed)
            if first.setdefault(key, number) != number:
                problems.append(f"{place}: {' '.join(key)} stands in line {first[key]} already")
            rows.append(row)
    if problems:
        raise InputError(*problems)
    return tuple(rows)


def _faults_of_header(file: Path, names: list[str]) -> list[str]:
    strangers = [f"{file.name}:1: unknown column {name!r}{did_you_mean(name, COLUMNS)}" for name in names if name not in COLUMNS]
    missing = [f"{file.name}:1: column {name!r} is missing" for name in COLUMNS if name not in names and name not in OPTIONAL]
    twice = [f"{file.name}:1: column {name!r} stands there twice" for name in repeated(names)]
    return [*strangers, *missing, *twice]


def _row(cells: dict[str, str], table: str, place: str) -> Published:
    values = {name: _value(name, text.strip()) for name, text in cells.items()}
    try:
        return Published.model_validate({**values, "table": table})
    except ValidationError as error:
        raise InputError(*[f"{place}: {problem}" for problem in problems_of(error, "", COLUMNS)]) from None


def _value(name: str, text: str) -> object:
    """A cell as its column takes it; an empty one is None. What is no number is left for the model to refuse."""
    if not text:
        return None
    if name not in (*NUMBERS, *COUNTS):
        return text
    try:
        return float(text) if name in NUMBERS else int(text)
    except ValueError:
        return text


@cache
def tables() -> dict[str, Path]:
    """The shipped tables by name."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.csv"))}


@cache
def published() -> tuple[Published, ...]:
    """Every number of the shipped tables."""
    return tuple(row for file in tables().values() for row in read_published(file))


def published_in(table: str) -> tuple[Published, ...]:
    """The numbers of one shipped table; raises InputError with the nearest name."""
    if table not in tables():
        raise InputError(unknown("published", table, tables()))
    return tuple(row for row in published() if row.table == table)
