"""What each method gains in each class over the student alone, as a heat map."""

from __future__ import annotations

import altair as alt
import pandas as pd

from kdzoo.suite.page.charts.marks import ROWS, STEP, base, difference_tip, end_words, in_reader_units, layered, value_format, when
from kdzoo.tasks.task import Metric

MOST_LABELLED = 12
"""number of columns up to which every cell bears its number"""


def classes_chart(frame: pd.DataFrame, metric: Metric) -> alt.LayerChart:
    """The rows of one table (`classes.class_frame`): a row a class, a column a method; blue gains, red losses."""
    methods, classes = list(dict.fromkeys(frame["row"])), list(dict.fromkeys(frame["class"]))
    bound = float(frame["gain"].abs().max()) or 0.01
    many = len(methods) > MOST_LABELLED
    cells = in_reader_units(base(), ("gain",), metric).encode(
        x=alt.X("row:N", title=None, sort=methods, axis=alt.Axis(orient="top", ticks=False, domain=False, labelAngle=-90 if many else -35)),
        y=alt.Y("class:N", title="class", sort=classes, axis=alt.Axis(ticks=False, domain=False)),
    )
    fill = alt.Color(
        "gain:Q",
        scale=alt.Scale(scheme="redblue", domain=[-bound, bound]),
        legend=alt.Legend(title=metric.difference_words, orient="bottom", labelExpr=end_words(metric), gradientLength=160),
    )
    rectangles = cells.mark_rect().encode(
        color=fill,
        tooltip=[
            alt.Tooltip("row:N", title="method"),
            alt.Tooltip("class:N"),
            difference_tip("gain", "gain over the student alone", metric),
            alt.Tooltip("accuracy:Q", title="share named rightly", format=value_format(metric)),
            alt.Tooltip("images:Q", title="test images"),
            alt.Tooltip("n:Q", title="seeds"),
        ],
    )
    parts = [rectangles.properties(name=ROWS)]
    if not many:
        ink = alt.ColorValue("#10141a", condition=when(f"abs(datum.gain) > {0.55 * bound!r}", "#ffffff"))
        parts.append(cells.transform_calculate(label="format(datum.gain_shown, '+.1f')").mark_text().encode(text="label:N", color=ink))
    return layered(*parts, height=STEP * len(classes))
