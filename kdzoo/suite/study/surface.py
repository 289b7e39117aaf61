"""A surface as a study asks for it: one metric of a method over two axes of a bench. Free of torch."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from kdzoo.runs.fields import Spec
from kdzoo.suite.report.axes import Among
from kdzoo.tasks.classification import CLASSIFICATION


class SurfaceSpec(Spec):
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
    best: Among = "table"
    phase: Literal["sweep", "refit"] = "sweep"
