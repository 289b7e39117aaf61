"""A run as run.json has it, with its fields as canonical JSON: what runs of a bench share is parsed once. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError

from kdzoo.errors import InputError
from kdzoo.runs.canonical import as_json, object_of
from kdzoo.runs.fields import Spec, parse
from kdzoo.runs.spec import Run

MOST_PARTS = 10_000
"""different students, recipes, objectives, ... of which the specification is remembered"""


def read_run(content: object, run_id: str, where: str) -> tuple[Run, dict[str, str]]:
    """A run from plain JSON data, and every part of it as canonical JSON, by name.

    Raises InputError with all that is wrong with it below `where`, and where it is not the run with this id. Content that is
    canonical already, as a file is that kdzoo wrote, is not put in that form again: its digest is the id.
    """
    parts = _parts_of(content) if isinstance(content, Mapping) else {}
    specs = {name: part.spec for name, part in parts.items() if part.spec is not None}
    run = parse(Run, {**content, **specs} if isinstance(content, Mapping) else content, where)
    texts = {name: part.text for name, part in parts.items()}
    if run.id_of(object_of(texts)) == run_id:
        return run, texts
    if run.id != run_id:
        raise InputError(f"{where}: describes {run.id}, not the run its folder is named after")
    return run, run.parts


class _Part(NamedTuple):
    """A part of a run as JSON; spec: its specification, None for a plain value and for what has faults."""

    text: str
    spec: Spec | None


def _parts_of(content: Mapping[str, Any]) -> dict[str, _Part]:
    """The parts of a run by name, in order; none where a value is no JSON, of which the parser says more."""
    try:
        return {name: _part(name, as_json(content[name])) for name in sorted(content)}
    except ValueError:
        return {}


def _part(name: str, text: str) -> _Part:
    return _known_part(name, text) if name in SPECS else _Part(text, None)


@lru_cache(MOST_PARTS)
def _known_part(name: str, text: str) -> _Part:
    try:
        return _Part(text, SPECS[name].model_validate(json.loads(text)))
    except ValidationError:
        return _Part(text, None)


SPECS: dict[str, type[Spec]] = {
    name: kind
    for name, field in Run.model_fields.items()
    for kind in get_args(field.annotation) or (field.annotation,)
    if isinstance(kind, type) and issubclass(kind, Spec)
}
"""the specifications that a run is made of, by the names of its parts"""
