"""What run.json must record beside its run, under `about`, for a bench or a table to build on it. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kdzoo.errors import problems_of
from kdzoo.runs.canonical import as_json


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


MOST_RECORDS = 10_000
"""different records of which the content is remembered"""


def shared_record(content: Any) -> dict[str, Any]:
    """What a file records beside a run, of which equal records share the parts; raises TypeError or ValueError for what is no object.

    Most runs of a bench have the same record, or that of the other seeds of their setting: without this a table would hold each anew.
    """
    try:
        text = as_json(content)
    except ValueError:  # no JSON, such as NaN
        return dict(content)
    return dict(_known_record(text))


def about_faults(content: object) -> list[str]:
    """What is wrong with what run.json records beside its run, a line each; empty where nothing is."""
    try:
        return list(_known_faults(as_json(content)))
    except (TypeError, ValueError):  # no JSON, such as NaN: its faults are told by its place
        return _faults(content)


@lru_cache(MOST_RECORDS)
def _known_record(text: str) -> Any:
    return json.loads(text)


@lru_cache(MOST_RECORDS)
def _known_faults(text: str) -> tuple[str, ...]:
    return tuple(_faults(json.loads(text)))


def _faults(content: object) -> list[str]:
    try:
        _About.model_validate(content)
    except ValidationError as error:
        return problems_of(error, "about")
    return []
