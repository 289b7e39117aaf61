"""The page's data: every frame once, column by column, and every specification once, as JSON that is safe inside HTML."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from kdzoo.suite.page.kinds import Chart

OF_THE_CSV = 10
"""significant digits of a number, as in the CSV files"""
OF_A_CHART = 6
"""significant digits of a number that is drawn: what is pointed at shows fewer"""
FEW = 0.5
"""share of different texts in a column up to which it is written as a list of them and numbers into that list"""


def packed(frame: pd.DataFrame, digits: int = OF_THE_CSV) -> dict[str, Any]:
    """A frame by column: `{"all": value}` where all rows are equal, `{"of": texts, "at": numbers}` where few texts recur, else a list."""
    columns = {str(name): _column([plain(value, digits) for value in frame[name]]) for name in frame.columns}
    return {"rows": len(frame), "columns": columns}


def _column(values: Sequence[Any]) -> Any:
    different = list(dict.fromkeys(values))
    if len(different) == 1 and len(values) > 1:
        return {"all": different[0]}
    if all(isinstance(value, str) or value is None for value in different) and len(different) < FEW * len(values):
        place = {value: at for at, value in enumerate(different)}
        return {"of": different, "at": [place[value] for value in values]}
    return list(values)


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame as a list of rows, as Vega reads them."""
    columns = {str(name): [plain(value) for value in frame[name]] for name in frame.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def plain(value: Any, digits: int = OF_THE_CSV) -> Any:
    """A cell as JSON: numbers with so many significant digits, null for what is not there."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        if not math.isfinite(number):
            return None
        return int(number) if number.is_integer() and abs(number) < 2**53 else float(f"{number:.{digits}g}")
    return None if value is pd.NaT or value is pd.NA else str(value)


def charts_as_data(charts: Iterable[Chart]) -> dict[str, Any]:
    """`frames` by name, `specs` each once, and for every chart which of them it takes."""
    frames: dict[str, Any] = {}
    specs: dict[str, int] = {}
    places = []
    for chart in charts:
        frames.setdefault(chart.data, packed(chart.frame, OF_A_CHART))
        text = json.dumps(specification(chart), sort_keys=True)
        places.append({"frame": chart.data, "spec": specs.setdefault(text, len(specs))})
    return {"frames": frames, "specs": [json.loads(text) for text in specs], "charts": places}


def specification(chart: Chart) -> dict[str, Any]:
    """A chart as Vega-Lite, with its data by name, as wide as its place."""
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    return dict(chart.chart.properties(width="container", autosize=fit).to_dict(validate=False))  # the tests validate every kind


def in_html(value: Mapping[str, Any]) -> str:
    """JSON for a script element: nothing in it ends the element or begins another, whatever a name holds."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return (
        text.replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )
