"""A run as run.json has it, with its fields as canonical JSON and the record beside it. What runs share is parsed once. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError
from pydantic_core import from_json

from kdzoo.errors import InputError
from kdzoo.runs.about import MOST_RECORDS, about_faults, shared_record
from kdzoo.runs.atomic import json_object
from kdzoo.runs.canonical import as_json, object_of
from kdzoo.runs.fields import Spec, parse
from kdzoo.runs.pieces import members
from kdzoo.runs.sealed_json import DIGEST, changed, without_digest
from kdzoo.runs.spec import Run

MOST_PARTS = 10_000
"""different students, recipes, objectives, ... of which the specification and the layout are remembered"""


class PlanFile(NamedTuple):
    """What run.json says: the run, its fields as canonical JSON by name (`parts`), the record beside it, and what is wrong with that."""

    run: Run
    parts: dict[str, str]
    about: dict[str, Any]
    faults: tuple[str, ...]


def read_plan_file(text: bytes, run_id: str, where: str) -> PlanFile:
    """The content of the run.json of the run with this id; raises InputError with all that is wrong below `where`."""
    text = without_digest(text, where)
    if (known := _read_pieces(text, run_id, where)) is not None:
        return known
    content = json_object(text, where)
    if DIGEST in content:
        raise changed(where)
    run, parts = read_run(content.get("run"), run_id, where)
    try:
        about = shared_record(content.get("about", {}))
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: damaged (about: expected an object, {error})") from error
    return PlanFile(run, parts, about, tuple(about_faults(about)))


def _read_pieces(text: bytes, run_id: str, where: str) -> PlanFile | None:
    """The content of a run.json in the layout that kdzoo writes, where pieces that an earlier file had are not parsed again.

    None for a file in any other layout.
    """
    pieces = members(text.removesuffix(b"\n"), 1)
    parts_as_written = members(pieces["run"], 2) if pieces is not None and pieces.keys() == {"about", "id", "run"} else None
    if pieces is None or parts_as_written is None:
        return None
    try:
        from_json(pieces["id"])
        about, faults = _known_about(pieces["about"])
        parts = {name: _known_piece(name, piece) for name, piece in parts_as_written.items()}
    except (TypeError, ValueError, RecursionError):
        return None
    run, canonical_parts = _run_of(parts, {name: part.value for name, part in parts.items()}, run_id, where)
    return PlanFile(run, canonical_parts, dict(about), faults)


@lru_cache(MOST_RECORDS)
def _known_about(piece: bytes) -> tuple[dict[str, Any], tuple[str, ...]]:
    about = shared_record(from_json(piece))
    return about, tuple(about_faults(about))


def read_run(content: object, run_id: str, where: str) -> tuple[Run, dict[str, str]]:
    """A run from plain JSON data, and every part of it as canonical JSON, by name.

    Raises InputError with all that is wrong with it below `where`, and where it is not the run with this id. Files that kdzoo
    wrote are canonical already: where the digest of the content is the id, it is not converted again.
    """
    return _run_of(_parts_of(content) if isinstance(content, Mapping) else {}, content, run_id, where)


def _run_of(parts: Mapping[str, _Part], content: object, run_id: str, where: str) -> tuple[Run, dict[str, str]]:
    """The run of these parts of `content`; raises InputError as `read_run` does."""
    specs = {name: part.spec for name, part in parts.items() if part.spec is not None}
    run = parse(Run, {**content, **specs} if isinstance(content, Mapping) else content, where)
    texts = {name: part.text for name, part in parts.items()}
    if run.id_of(object_of(texts)) == run_id:
        return run, texts
    if run.id != run_id:
        raise InputError(f"{where}: describes {run.id}, not the run its folder is named after")
    return run, run.parts


class _Part(NamedTuple):
    """A part of a run, as canonical JSON where it is canonical; spec: its specification, None for a plain value and for what has faults."""

    text: str
    value: Any
    spec: Spec | None


def _parts_of(content: Mapping[str, Any]) -> dict[str, _Part]:
    """The parts of a run by name, in order; none where a value is no JSON, of which the parser says more."""
    try:
        return {name: _part(name, as_json(content[name]), content[name]) for name in sorted(content)}
    except ValueError:
        return {}


def _part(name: str, text: str, value: Any) -> _Part:
    return _Part(text, value, _known_spec(name, text) if name in SPECS else None)


@lru_cache(MOST_PARTS)
def _known_spec(name: str, text: str) -> Spec | None:
    try:
        return SPECS[name].model_validate(json.loads(text))
    except ValidationError:
        return None


@lru_cache(MOST_PARTS)
def _known_piece(name: str, piece: bytes) -> _Part:
    """A part as a file has it; raises ValueError for what is no JSON, or is NaN."""
    value = from_json(piece)
    return _part(name, as_json(value), value)


SPECS: dict[str, type[Spec]] = {
    name: kind
    for name, field in Run.model_fields.items()
    for kind in get_args(field.annotation) or (field.annotation,)
    if isinstance(kind, type) and issubclass(kind, Spec)
}
"""the specifications that a run is made of, by the names of its parts"""
