"""What has to be equal for the numbers of two benches to be compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from kdzoo.runs.flatten import flatten
from kdzoo.runs.recipe import Recipe
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.budget_words import EVERY_SETTING, search_words
from kdzoo.suite.report.records import Record, taught_on


def protocol_of(bench: BenchRecords) -> dict[str, frozenset[str]]:
    """Every part of the runs' specification that has to be equal for numbers to be compared, and its values.

    Nested parts have names such as `student.stem`, so that a warning names what differs and nothing that is equal.
    """
    values_of: dict[str, set[str]] = {}
    for record in {_compared(record): record for record in bench.records}.values():
        for key, value in _parts(record).items():
            values_of.setdefault(key, set()).add(value_text(value))
    values_of["search"] = {search_words(block.searched) or EVERY_SETTING for block in bench.blocks} or {EVERY_SETTING}
    values_of["seeds"] = {str(sorted({record.run.seed for record in bench.records}))}
    return {key: frozenset(values) for key, values in values_of.items()}


def _compared(record: Record) -> tuple[object, ...]:
    """Equal for runs that are equal in all that has to be: most of a bench's are, and are spelled out once."""
    parts = (record.canonical.get(part) for part in ("data", "recipe", "student", "teacher", "engine"))
    versions = tuple((term.method, term.version) for term in record.run.objective.terms)
    return (*parts, versions, taught_on(record), record.table_key.phase, record.table_key.recipe, tuple(_machine(record).items()))


def _parts(record: Record) -> dict[str, Any]:
    run = record.run.model_dump(mode="json")
    data = {key: value for key, value in run["data"].items() if key != "transfer"}
    parts = flatten({"data": data, "recipe": dict.fromkeys(Recipe.model_fields) | run["recipe"]})
    parts |= {"transfer set": taught_on(record) or "all training images"}
    parts |= {"engine": run["engine"], "phase": record.table_key.phase, "recipe": record.table_key.recipe}
    parts |= {f"version of {term['method']}": term["version"] for term in run["objective"]["terms"]}
    parts |= flatten({part: run[part] for part in ("student", "teacher") if run[part]})
    return parts | _machine(record)


def _machine(record: Record) -> dict[str, Any]:
    """Where a finished run was trained, as far as numbers depend on it."""
    environment = record.result["environment"] if record.result else {}
    return {key: environment[key] for key in ("device", "threads", "torch") if key in environment}


def value_text(value: Any) -> str:
    """A value as it is named in a warning; whole numbers alike, whatever they were read from."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {value_text(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)
