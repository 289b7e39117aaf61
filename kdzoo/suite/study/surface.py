"""A surface: one metric of a method over two axes of a bench, as a study asks for it. Free of torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import JsonValue

from kdzoo.errors import InputError, unknown
from kdzoo.runs.fields import Spec
from kdzoo.suite.report.records import Record
from kdzoo.suite.report.settings import setting_of
from kdzoo.tasks.classification import CLASSIFICATION

OF_NETWORKS = ("teacher", "student", "pair")
OF_A_SETTING = ("temperature", "alpha", "weight", "dose", "coefficients")
"""coefficients: those of the sum in words, such as `0.1 CE + 0.9 hinton`"""
AXES = (*OF_NETWORKS, *OF_A_SETTING)
"""what an axis may be besides a field of the method's"""


class Surface(Spec):
    """The mean of a metric for each value of two axes, over all runs of a method in a stage.

    rows, columns: `temperature`, `alpha`, `weight`, `dose`, `coefficients`, `student`, `teacher`, `pair`, or a field of the
    method's. setting: only runs at these values, where the stage has further axes. best: among which cells the best one is
    marked: of the whole table, of each row, or of each column.
    """

    name: str
    stage: str | None = None
    method: str
    rows: str
    columns: str
    setting: dict[str, JsonValue] = {}
    metric: str = CLASSIFICATION.headline.name
    best: Literal["table", "rows", "columns"] = "table"
    phase: Literal["sweep", "refit"] = "sweep"


def value_on(axis: str, record: Record) -> Any:
    """Where a run stands on an axis; raises InputError for an axis on which it has no place."""
    run, about = record.run, record.about
    if axis in OF_NETWORKS:
        return {"teacher": run.teacher and run.teacher.name, "student": run.student.name, "pair": record.place.pair}[axis]
    if axis == "coefficients":
        return " + ".join([f"{run.objective.task:g} CE", *(f"{term.coefficient:g} {term.method}" for term in run.objective.terms)])
    fields = {key: value for term in run.objective.terms for key, value in term.hyperparameters.items()}
    fields |= {f"{term.method}.{key}": value for term in run.objective.terms for key, value in term.hyperparameters.items()}
    setting = setting_of(run.objective, about.get("methods", {}), about.get("doses", {}))
    values = {**fields, **{key: value for key in OF_A_SETTING[:4] if (value := getattr(setting, key)) is not None}}
    if axis not in values:
        raise InputError(unknown(f"axis of {record.method}", axis, [*OF_NETWORKS, "coefficients", *values]))
    return values[axis]
