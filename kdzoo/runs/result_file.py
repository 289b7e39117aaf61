"""A result as it is written to result.json and read back, checked against its declaration. What results share is kept once. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import from_json

from kdzoo.errors import InputError, KdzooError, problems_of
from kdzoo.runs.atomic import json_object
from kdzoo.runs.flatten import flatten
from kdzoo.runs.pieces import members
from kdzoo.runs.results import SCHEMA, Result, result_model
from kdzoo.runs.sealed_json import DIGEST, changed, without_digest
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.known import task_named

FORMER_NAMES = {"memo": "teacher_cache"}
"""keys of schema 1 by their present names"""

SEALED_SINCE = 6
"""the schema of the first results that have a digest"""

SHARED = ("environment", "student", "teacher")
"""what is the same in many results of a bench"""
MOST_SHARED = 1000
"""different teachers, students and environments that are remembered"""


class NewerSchema(KdzooError):
    """A result of a later schema than this kdzoo knows: it is neither read nor taken for damaged."""


def _model_for(content: object) -> type[Result]:
    """The model of the task that a result names; raises InputError for a task that is not known."""
    name = content.get("task", CLASSIFICATION.name) if isinstance(content, Mapping) else CLASSIFICATION.name
    return result_model(task_named(str(name)))


def complete(content: Mapping[str, Any]) -> dict[str, Any]:
    """A result ready to be written, with the schema's number; raises ValueError where a field is missing or is not declared.

    Its digest is that of the file, and comes when that is laid out.
    """
    whole = {**{name: value for name, value in content.items() if name != DIGEST}, "schema": SCHEMA}
    declared = _model_for(whole).model_validate(whole).model_dump(mode="json", by_alias=True)
    fields, declared_fields = set(flatten(whole)), set(flatten(declared)) - {DIGEST}
    unknown = [f"{place}: not declared" for place in sorted(fields - declared_fields)]
    missing = [f"{place}: missing" for place in sorted(declared_fields - fields)]
    if unknown or missing:
        raise ValueError("\n".join([*unknown, *missing]))
    return whole


def parse_result(text: bytes, where: str) -> dict[str, Any]:
    """The JSON object of a result.json without its digest; results that say the same of their networks hold one copy. Not to be changed.

    Raises InputError where the text is no JSON object, or not the one that was written.
    """
    body = without_digest(text, where)
    content = _parsed(body, where)
    schema = content.get("schema")
    if content.get(DIGEST) is not None or (body is text and isinstance(schema, int) and SEALED_SINCE <= schema <= SCHEMA):
        raise changed(where)
    return content


def _parsed(text: bytes, where: str) -> dict[str, Any]:
    pieces = members(text.removesuffix(b"\n"), 1)
    if pieces is None:  # laid out in another way than kdzoo writes it
        return json_object(text, where)
    try:
        content = {name: _shared(piece) if name in SHARED else from_json(piece) for name, piece in pieces.items()}
    except (ValueError, RecursionError):
        return json_object(text, where)
    if "last" in pieces and pieces["last"] == pieces.get("best"):
        content["best"] = content["last"]
    return content


@lru_cache(MOST_SHARED)
def _shared(piece: bytes) -> Any:
    return from_json(piece)


def read_result(content: object, run_id: str) -> dict[str, Any]:
    """The content of a result.json of a run under the present names.

    Raises InputError with all that is wrong with it, and NewerSchema for a result of a later schema.
    """
    if isinstance(content, dict):
        schema = content.get("schema", 1)
        if isinstance(schema, int) and schema > SCHEMA:
            raise NewerSchema(f"schema {schema} is newer than this kdzoo reads ({SCHEMA}); update kdzoo")
        if schema == 1:
            content = {FORMER_NAMES.get(key, key): value for key, value in content.items()}
    try:
        result = _model_for(content).model_validate(content)
    except ValidationError as error:
        raise InputError(*problems_of(error)) from error
    if result.id != run_id:
        raise InputError(f"id: expected {run_id}, got {result.id}")
    assert isinstance(content, dict)
    return content


def last_epoch_metrics(result: Mapping[str, Any], part: Literal["val", "test"]) -> Mapping[str, Any] | None:
    """What was measured on one part of the data after the last epoch, from which tables are made; None where nothing was held out."""
    metrics: Mapping[str, Any] | None = result["last"].get(part)
    return metrics
