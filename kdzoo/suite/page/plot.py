"""Charts as files, without a browser: `write_plot`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import vl_convert

from kdzoo.errors import InputError, unknown
from kdzoo.runs.atomic import write_bytes
from kdzoo.runs.output_files import output_file
from kdzoo.suite.page.bundle import VEGA_LITE
from kdzoo.suite.page.chart_kind import ChartKind
from kdzoo.suite.page.charts.marks import CONFIG, INK, ROWS
from kdzoo.suite.page.data import rows_of
from kdzoo.suite.page.kinds import KINDS, Chart
from kdzoo.suite.page.tables import BenchTables
from kdzoo.suite.report.rows import filtered
from kdzoo.suite.report.table_files import as_csv

COLUMNS = 3
"""charts beside each other in a file with many"""
WIDTH = 420
CELL_WIDTH = 72
SHARPNESS = 2.0
"""pixels of a PNG for each one of the chart"""

WRITERS: Mapping[str, Callable[[dict[str, Any]], bytes]] = {
    ".svg": lambda spec: vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE).encode(),
    ".png": lambda spec: bytes(vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, scale=SHARPNESS)),
    ".pdf": lambda spec: bytes(vl_convert.vegalite_to_pdf(spec, vl_version=VEGA_LITE)),
}


def write_plot(tables: BenchTables, kind: ChartKind, file: Path, conditions: Sequence[str] = ()) -> Path:
    """Draw all charts of one kind into a file, with their rows beside it as CSV; the path of the CSV.

    conditions: of the rows that are drawn, such as `method=hinton` (`rows.filtered`). Raises InputError for an unknown ending,
    for what is there and is no plain file, and where the bench has nothing to draw.
    """
    ending = file.suffix.lower()
    if not ending:
        raise InputError(f"output: expected a file that ends in {', '.join(WRITERS)}, got {str(file)!r}")
    if ending not in WRITERS:
        raise InputError(unknown("output", ending, WRITERS))
    table = file.with_name(f"{file.name}.csv")  # beside a chart that is called as a bench's own table too
    drawn, numbers = output_file(file), output_file(table)
    frame = KINDS[kind].frame(tables)
    for condition in conditions if len(frame) else ():
        frame = filtered(frame, condition)
    charts = list(KINDS[kind].charts(frame, tables))
    if not charts:
        reason = KINDS[kind].reason_for_none(tables)
        nothing = f"plot: {tables.bench.name} has no {kind} to draw{' for these rows' * bool(conditions)}: {reason}"
        raise InputError(nothing, *KINDS[kind].omissions(tables))
    write_bytes(drawn, WRITERS[ending](specification(charts)))
    write_bytes(numbers, as_csv(pd.concat({chart.data: chart.frame for chart in charts}.values())))
    return table


def specification(charts: Sequence[Chart]) -> dict[str, Any]:
    """Charts of one kind as one Vega-Lite specification that holds their data: each below its title, beside each other."""
    parts = [_part(number, chart) for number, chart in enumerate(charts)]
    datasets = {name: rows for part in parts for name, rows in part.pop("datasets", {}).items()}
    datasets |= {chart.data: rows_of(chart.frame) for chart in charts}
    schema = [part.pop("$schema") for part in parts]
    return {
        "$schema": schema[0],
        "config": json.loads(json.dumps(CONFIG).replace("currentColor", INK)) | {"background": "white"},
        "datasets": datasets,
        "concat": parts,
        "columns": min(COLUMNS, len(parts)),
        "spacing": 36,
        "resolve": {"scale": {"color": "independent"}, "legend": {"color": "independent"}},
    }


def _part(number: int, chart: Chart) -> dict[str, Any]:
    """A chart under its title, with its data and its layer under names that no other chart has."""
    title = {"text": chart.title, "subtitle": chart.label} if chart.label else chart.title
    cells = chart.frame["column" if chart.frame["column"].any() else "row"].nunique() if chart.kind is ChartKind.surface else 0
    spec = chart.chart.properties(width=CELL_WIDTH * cells or WIDTH).to_dict(validate=False)
    spec.pop("config", None)
    named: dict[str, Any] = _renamed(spec, {"data": chart.data, "name": f"{ROWS}-{number}"})
    return named | {"title": title}


def _renamed(spec: Any, names: Mapping[str, str]) -> Any:
    """A specification whose data and layer of the name ROWS have other names."""
    if isinstance(spec, list):
        return [_renamed(part, names) for part in spec]
    if not isinstance(spec, dict):
        return spec
    if spec.get("data") == {"name": ROWS}:
        spec = spec | {"data": {"name": names["data"]}}
    if spec.get("name") == ROWS:
        spec = spec | {"name": names["name"]}
    return {key: part if key == "data" else _renamed(part, names) for key, part in spec.items()}
