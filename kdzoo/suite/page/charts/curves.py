"""Learning curves: one measure over the epochs, the mean over seeds of every chosen setting and of the controls."""

from __future__ import annotations

import altair as alt
import pandas as pd

from kdzoo.suite.page.charts.marks import ROWS, axis_format, base, layered, series_colour, value_format, when
from kdzoo.suite.page.frames.series import OTHERS
from kdzoo.tasks.task import Metric

HEIGHT = 300


def curves_chart(frame: pd.DataFrame, metric: Metric, end: float | None) -> alt.LayerChart:
    """The rows of one measure of one table (`curves.read_curves`): lines, the range over seeds, and a point an epoch.

    end: of the axis, above which nothing is drawn; None for one that shows every value.
    """
    measure = str(frame["measure"].iloc[0])
    validation = measure.startswith("validation")
    format_ = value_format(metric) if validation else ".4g"
    axis = alt.Axis(format=axis_format(metric) if validation else "~r", tickCount=5)
    scale = alt.Scale(zero=False) if end is None else alt.Scale(zero=False, domainMax=end)
    y = alt.Y("mean:Q", title=measure, scale=scale, axis=axis)
    colour = series_colour(frame, "stroke")
    lines = base().encode(x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, grid=False)), color=colour, detail="series:N")
    spread = lines.mark_area(opacity=0.16, clip=end is not None).encode(y=alt.Y("low:Q", title=measure, scale=scale), y2="high:Q")
    strong = alt.OpacityValue(0.95, condition=when(f"datum.colour == '{OTHERS}'", 0.35))
    means = lines.mark_line(strokeWidth=1.8, clip=True).encode(y=y, opacity=strong)
    points = lines.mark_point(filled=True, size=16, clip=end is not None).encode(
        y=y,
        opacity=strong,
        tooltip=[
            alt.Tooltip("series:N", title="method"),
            alt.Tooltip("epoch:Q"),
            alt.Tooltip("mean:Q", title=measure, format=format_),
            alt.Tooltip("low:Q", title="lowest seed", format=format_),
            alt.Tooltip("high:Q", title="highest seed", format=format_),
            alt.Tooltip("n:Q", title="seeds"),
        ],
    )
    return layered(spread, means, points.properties(name=ROWS), height=HEIGHT)
