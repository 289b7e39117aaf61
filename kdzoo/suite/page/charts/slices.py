"""A sweep along one of its axes: mean and spread over seeds, a line for each value of the other axis."""

from __future__ import annotations

from typing import Literal

import altair as alt
import pandas as pd

from kdzoo.suite.page.charts.marks import ROWS, axis_format, base, layered, when
from kdzoo.suite.page.charts.surface import setting_axis, setting_tips
from kdzoo.suite.page.frames.sweeps import has_two_axes, part_words
from kdzoo.suite.report.axes import in_order
from kdzoo.suite.report.settings import AXIS_WORDS
from kdzoo.tasks.task import Metric

HEIGHT = 210


def slices_chart(frame: pd.DataFrame, metric: Metric, along: Literal["column", "row"]) -> alt.LayerChart:
    """The cells of one sweep (`sweeps.sweep_frame`) along its column or row axis; whiskers are one sd over seeds."""
    spread = "isValid(datum.sd) ? datum.sd : 0"
    title = f"{part_words(frame)} {metric.heading}"
    y = alt.Y("mean:Q", title=title, scale=alt.Scale(zero=False, padding=8), axis=alt.Axis(format=axis_format(metric), tickCount=5))
    cells = base().transform_calculate(less=f"datum.mean - ({spread})", more=f"datum.mean + ({spread})")
    cells = cells.encode(x=setting_axis(alt.X, frame, along))
    if has_two_axes(frame):
        cells = cells.encode(color=_line_of(frame, "row" if along == "column" else "column"))
    lines = cells.mark_line(strokeWidth=1.5, opacity=0.8).encode(y=y)
    whiskers = cells.mark_rule(opacity=0.55).encode(y=alt.Y("less:Q", title=title), y2="more:Q")
    size = alt.SizeValue(45, condition=when("datum.chosen", 150))
    points = cells.mark_point(filled=True, opacity=1).encode(y=y, size=size, tooltip=setting_tips(frame, metric))
    return layered(lines, whiskers, points.properties(name=ROWS), height=HEIGHT)


def _line_of(frame: pd.DataFrame, across: str) -> alt.Color:
    """A colour for each value of the other axis."""
    title = str(frame[f"{across}_axis"].iloc[0])
    order = sorted(dict.fromkeys(frame[across]), key=in_order)
    legend = alt.Legend(orient="top", symbolType="circle")
    return alt.Color(f"{across}:N", title=AXIS_WORDS.get(title, title), sort=order, legend=legend)
