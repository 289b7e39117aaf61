"""Differences to tuned KD, a row a method, with the interval of the row by itself and that for all rows at once."""

from __future__ import annotations

import altair as alt
import pandas as pd

from kdzoo.suite.page.charts.marks import GREEN, GREY, RED, ROWS, STEP, base, difference_axis, difference_tip, in_reader_units, layered
from kdzoo.tasks.task import Metric

FIELDS = ("vs_kd", "vs_kd_low", "vs_kd_high", "vs_kd_all_low", "vs_kd_all_high")


def forest_chart(frame: pd.DataFrame, metric: Metric) -> alt.LayerChart:
    """The healthy rows of one table of a leaderboard, with the columns of `forest.forest_frame`, in their order."""
    order = list(dict.fromkeys(frame["row"]))
    rows = in_reader_units(base(), FIELDS, metric).encode(
        y=alt.Y("row:N", title=None, sort=order, axis=alt.Axis(ticks=False, domain=False, labelLimit=190))
    )
    title = f"difference to tuned KD, test {metric.heading} in {metric.difference_words}"
    x = alt.X("vs_kd:Q", title=title, axis=difference_axis(metric, tickCount=6))
    colour = alt.Color(
        "side:N",
        scale=alt.Scale(domain=["better", "not told apart", "worse"], range=[GREEN, GREY, RED]),
        legend=alt.Legend(orient="top", title=None, symbolType="circle"),
    )
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(strokeDash=[4, 3], opacity=0.7).encode(x=alt.X("zero:Q", title=title))
    whole = rows.mark_rule(strokeWidth=1.5).encode(x=alt.X("vs_kd_all_low:Q", title=title), x2="vs_kd_all_high:Q", color=colour)
    single = rows.mark_rule(strokeWidth=4.5, opacity=0.55).encode(x=alt.X("vs_kd_low:Q", title=title), x2="vs_kd_high:Q", color=colour)
    points = rows.mark_point(filled=True, size=70, opacity=1).encode(
        x=x,
        color=colour,
        tooltip=[
            alt.Tooltip("row:N", title="method"),
            alt.Tooltip("setting:N"),
            difference_tip("vs_kd", "difference to tuned KD", metric),
            difference_tip("vs_kd_low", "95 % from", metric),
            difference_tip("vs_kd_high", "to", metric),
            difference_tip("vs_kd_all_low", "for all rows at once from", metric),
            difference_tip("vs_kd_all_high", "to ", metric),
            alt.Tooltip("n:Q", title="seeds"),
        ],
    )
    return layered(zero, whole, single, points.properties(name=ROWS), height=STEP * len(order))
