"""What a bench was merged from, in `merged.json` in its folder. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from kdzoo.errors import InputError, problems_of
from kdzoo.runs.atomic import read_json, write_json

NAME = "merged.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


class Replica(_Part):
    """A run that was trained a second time: where, how it was compared with the one that is kept, and its own headline by part."""

    folder: str
    by: Literal["bits", "spread"]
    headline: dict[str, float | None]
    environment: dict[str, Any]


class Merged(_Part):
    """The folders that a bench was merged from, the folder of which each run is, and the replicas of runs, by id."""

    folders: list[str]
    runs: dict[str, str]
    replicas: dict[str, list[Replica]]


def read_merged(folder: Path) -> Merged | None:
    """What a bench was merged from; None where the file is missing. Raises InputError for a damaged one."""
    file = folder / NAME
    if not file.exists():
        return None
    try:
        return Merged.model_validate(read_json(file))
    except ValidationError as error:
        raise InputError(f"{file}: damaged ({'; '.join(problems_of(error))})") from error


def write_merged(folder: Path, merged: Merged) -> None:
    write_json(folder / NAME, merged.model_dump(mode="json"))
