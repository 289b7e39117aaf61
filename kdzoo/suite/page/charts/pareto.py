"""Accuracy against one cost, with the front of those that nothing cheaper reaches."""

from __future__ import annotations

import altair as alt
import pandas as pd

from kdzoo.suite.page.charts.marks import BLUE, GREY, ROWS, axis_format, base, layered, value_format, when
from kdzoo.suite.page.charts.names import name_layers
from kdzoo.tasks.task import Metric

HEIGHT = 260
WIDE = 20
"""ratio of the largest to the smallest cost from which the axis is logarithmic"""
MOST_NAMED = 8
"""number of rows up to which each bears its name; of more, those on the front"""


def pareto_chart(frame: pd.DataFrame, metric: Metric) -> alt.LayerChart:
    """The rows of one cost of one table (`pareto.pareto_frame`); the front is a stair, its rows have names."""
    cost, test = str(frame["cost"].iloc[0]), f"test_{metric.name}"
    rows = base()
    y = alt.Y(
        f"{test}:Q",
        title=f"test {metric.heading}",
        scale=alt.Scale(zero=False, nice=False, padding=14),
        axis=alt.Axis(format=axis_format(metric)),
    )
    wide = frame["value"].min() > 0 and frame["value"].max() > WIDE * frame["value"].min()
    scale = alt.Scale(type="log", nice=False, padding=24) if wide else alt.Scale(zero=False, nice=False, padding=24)
    x = alt.X("value:Q", title=cost, scale=scale, axis=alt.Axis(format="~s", tickCount=5))
    front = rows.transform_filter("datum.front")
    stair = front.mark_line(interpolate="step-after", stroke=BLUE, strokeWidth=1.5, opacity=0.6).encode(x=x, y=y)
    points = rows.mark_point(filled=True, opacity=0.95).encode(
        x=x,
        y=y,
        color=alt.ColorValue(GREY, condition=when("datum.front", BLUE)),
        size=alt.SizeValue(45, condition=when("datum.front", 90)),
        tooltip=[
            alt.Tooltip("method:N"),
            alt.Tooltip("setting:N"),
            alt.Tooltip("pair:N"),
            alt.Tooltip("value:Q", title=cost, format=".4~s"),
            alt.Tooltip(f"{test}:Q", title=f"test {metric.heading}", format=value_format(metric)),
            alt.Tooltip("n:Q", title="seeds"),
        ],
    )
    best_first = frame.sort_values(test, ascending=metric.better == "lower", kind="stable")
    named = best_first.index if len(frame) <= MOST_NAMED else best_first.index[best_first["front"].astype(bool)]
    names = name_layers(rows.encode(x=x, y=y), frame, named, "value", test, "method", height=HEIGHT, log_x=wide)
    return layered(stair, points.properties(name=ROWS), *names, height=HEIGHT)
