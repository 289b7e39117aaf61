"""Where a run stands among the settings of its bench, axis by axis. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from kdzoo.errors import InputError, unknown
from kdzoo.suite.report.records import Record
from kdzoo.suite.report.settings import setting_of

OF_NETWORKS = ("teacher", "student", "pair")
OF_A_SETTING = ("temperature", "alpha", "weight", "dose", "coefficients")
"""coefficients: those of the sum in words, such as `0.1 CE + 0.9 hinton`"""
AXES = (*OF_NETWORKS, *OF_A_SETTING)
"""what an axis may be besides a field of the method's, and the dose of one term of a sum, such as `at.dose`"""

Among = Literal["table", "rows", "columns"]
"""what the best cell of two axes is the best of: all of them, or those of its row or column"""


def value_on(axis: str, record: Record) -> Any:
    """Where a run stands on an axis; raises InputError for an axis on which it has no place."""
    values = values_of(record)
    if axis not in values:
        raise InputError(unknown(f"axis of {record.method}", axis, values))
    return values[axis]


def values_of(record: Record) -> dict[str, Any]:
    """The values of a run on all axes on which it has a place; a field stands there with and without its method's name."""
    run, about = record.run, record.about
    task, terms, doses = run.objective.task, run.objective.terms, about.get("doses", {})
    setting = setting_of(run.objective, about.get("methods", {}), doses)
    values: dict[str, Any] = {"teacher": run.teacher and run.teacher.name, "student": run.student.name, "pair": record.table_key.pair}
    values["coefficients"] = " + ".join([f"{task:g} CE", *(f"{term.coefficient:g} {term.method}" for term in terms)])
    values |= {key: value for term in terms for key, value in term.hyperparameters.items()}
    values |= {f"{term.method}.{key}": value for term in terms for key, value in term.hyperparameters.items()}
    values |= {f"{term.method}.dose": doses[term.method]["dose"] for term in terms if term.method in doses}
    own = {"temperature": setting.temperature, "alpha": setting.alpha, "weight": setting.weight, "dose": setting.dose}
    return values | {key: value for key, value in own.items() if value is not None}


def setting_without(record: Record, axes: tuple[str, ...]) -> Mapping[str, Any]:
    """What a run's setting is apart from its values on these axes, by name: equal for runs that differ on them alone."""
    objective = record.run.objective
    alpha = setting_of(objective, record.about.get("methods", {}), record.about.get("doses", {})).alpha
    parts: dict[str, Any] = {"pairing": objective.pairing, **({"CE": objective.task} if alpha is None else {"alpha": alpha})}
    for term in objective.terms:
        prefix = "" if len(objective.terms) == 1 else f"{term.method}."
        parts |= {f"{prefix}{key}": value for key, value in term.hyperparameters.items()}
        if alpha is None:
            parts[f"weight of {term.method}"] = term.coefficient
    if objective.first is not None:
        parts |= {f"{objective.first.owner}.{key}": value for key, value in objective.first.term.hyperparameters.items()}
    return {name: value for name, value in parts.items() if not any(_changes(axis, name) for axis in axes)}


def _changes(axis: str, part: str) -> bool:
    """Whether an axis changes a part of the setting."""
    if axis in ("alpha", "weight", "dose", "coefficients"):
        return part in ("CE", "alpha") or part.startswith("weight of ")
    method, _, field = axis.rpartition(".")
    if method and field == "dose":
        return part == f"weight of {method}"
    of, _, name = part.rpartition(".")
    return name == field and (not method or not of or of == method)


def in_order(value: Any) -> list[tuple[int, float, str]]:
    """The order of values on an axis: numbers by size, and numbers within words too: `mlp_30_30` stands before `mlp_100_100`."""
    if isinstance(value, int | float):
        return [(0, float(value), "")]
    parts = re.split(r"(\d+(?:\.\d+)?)", str(value))
    return [(0, float(part), "") if at % 2 else (1, 0.0, part) for at, part in enumerate(parts)]


def value_words(value: Any) -> str:
    """A value on an axis for a reader."""
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
