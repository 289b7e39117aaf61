"""What run.json must record beside its run, under `about`, for a bench or a table to build on it. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdzoo.errors import problems_of


class _Read(BaseModel):
    """Base of what is needed of a file: further keys are welcome; NaN, infinities and text for a number are not."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class _Coefficients(_Read):
    task: float
    term: Annotated[float, Field(gt=0)]


class _Card(_Read):
    scale: Annotated[float, Field(gt=0)]
    published: _Coefficients
    declared: dict[str, Any] = {}


class _Dose(_Read):
    dose: Annotated[float, Field(ge=0)]
    ratio: Annotated[float, Field(gt=0)]
    measured: str


class _Licensed(_Read):
    part: str
    of: str
    licence: str


class _About(_Read):
    pair: str | None = None
    recipe: str | None = None
    phase: Literal["sweep", "refit"] | None = None
    methods: dict[str, _Card] = {}
    swept: list[str] = []
    sweep_teacher: str | None = None
    doses: dict[str, _Dose] = {}
    licences: list[_Licensed] = []


def class_names(about: Mapping[str, Any], classes: int) -> list[str] | None:
    """The names of a run's classes; None where there is not one name of its own for each of so many."""
    names = _names(about)
    return names if names is not None and len(names) == len(set(names)) == classes else None


def names_of_scores(about: Mapping[str, Any]) -> list[str] | None:
    """The class of each score of a run's network, of several columns of targets those of one after the other; None if unknown."""
    columns: Mapping[str, list[str]] = about.get("columns") or {}
    return [name for classes in columns.values() for name in classes] or _names(about)


def _names(about: Mapping[str, Any]) -> list[str] | None:
    names = about.get("class_names")
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def about_faults(content: object) -> list[str]:
    """What is wrong with what run.json records beside its run, a line each; empty where nothing is."""
    try:
        _About.model_validate(content)
    except ValidationError as error:
        return problems_of(error, "about")
    return []
