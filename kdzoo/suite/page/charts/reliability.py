"""Reliability diagrams: how often the likeliest class is right, against how sure the network is of it."""

from __future__ import annotations

import altair as alt
import pandas as pd

from kdzoo.suite.page.charts.marks import GREY, PALETTE, ROWS, axis_format, base, layered, series_colour, value_format
from kdzoo.suite.page.charts.names import name_layers
from kdzoo.tasks.task import Metric

HEIGHT = 300
MOST_NAMED = 12
"""number of rows up to which they bear their names"""


def reliability_chart(frame: pd.DataFrame) -> alt.LayerChart:
    """The rows of one table (`reliability.reliability_frame`); on the broken line confidence and accuracy are equal."""
    colour = series_colour(frame, "circle")
    lines = base().encode(
        x=alt.X("confidence:Q", title="confidence", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=5)),
        y=alt.Y("accuracy:Q", title="share named rightly", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=5)),
        color=colour,
        detail="series:N",
    )
    ends = alt.Chart(alt.InlineData(values=[{"at": 0}, {"at": 1}]))
    equal = ends.mark_line(strokeDash=[4, 3], stroke=GREY).encode(x="at:Q", y="at:Q")
    means = lines.mark_line(strokeWidth=1.6, opacity=0.8)
    points = lines.mark_point(filled=True, size=40, opacity=0.9).encode(
        tooltip=[
            alt.Tooltip("series:N", title="method"),
            alt.Tooltip("confidence:Q", format=".1%"),
            alt.Tooltip("accuracy:Q", title="share named rightly", format=".1%"),
            alt.Tooltip("images:Q", title="images of all seeds"),
        ]
    )
    return layered(equal, means, points.properties(name=ROWS), height=HEIGHT)


def agreement_chart(frame: pd.DataFrame, metric: Metric) -> alt.LayerChart:
    """The healthy rows of one table of a leaderboard that have a teacher: test value against agreement with the teacher."""
    test = f"test_{metric.name}"
    rows = base().encode(
        x=alt.X(
            "test_agreement:Q",
            title="agreement with the teacher",
            scale=alt.Scale(zero=False, nice=False, padding=20),
            axis=alt.Axis(format="~%"),
        ),
        y=alt.Y(
            f"{test}:Q",
            title=f"test {metric.heading}",
            scale=alt.Scale(zero=False, nice=False, padding=14),
            axis=alt.Axis(format=axis_format(metric)),
        ),
    )
    points = rows.mark_point(filled=True, size=60, opacity=0.95, color=PALETTE[0]).encode(
        tooltip=[
            alt.Tooltip("row:N", title="method"),
            alt.Tooltip("setting:N"),
            alt.Tooltip("test_agreement:Q", title="agreement with the teacher", format=".2%"),
            alt.Tooltip(f"{test}:Q", title=f"test {metric.heading}", format=value_format(metric)),
        ]
    )
    names = name_layers(rows, frame, frame.index, "test_agreement", test, "row", height=HEIGHT) if len(frame) <= MOST_NAMED else []
    return layered(points.properties(name=ROWS), *names, height=HEIGHT)
