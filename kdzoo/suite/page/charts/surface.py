"""A heat map of a sweep: validation mean, spread over seeds, the chosen cell, and how often the seeds would choose each."""

from __future__ import annotations

from typing import TypeVar

import altair as alt
import pandas as pd

from kdzoo.suite.page.charts.marks import OUTLINE, ROWS, base, layered, value_format, when
from kdzoo.suite.page.frames.sweeps import has_two_axes, part_words
from kdzoo.suite.report.axes import in_order
from kdzoo.suite.report.settings import AXIS_WORDS
from kdzoo.tasks.task import Metric

CELL_HEIGHT = 54
LINE_HEIGHT = 13
MOST_LABELLED = 10
"""up to so many cells in a row show their numbers; with more, pointing at a cell does"""
Channel = TypeVar("Channel", alt.X, alt.Y)


def surface_chart(frame: pd.DataFrame, metric: Metric) -> alt.LayerChart:
    """Cells of one sweep (`sweeps.sweep_frame`), coloured by their mean; the chosen one has a frame. One axis lies along x."""
    two = has_two_axes(frame)
    height = CELL_HEIGHT * (frame["row"].nunique() if two else 1)
    lower = metric.better == "lower"
    cells = base().transform_joinaggregate(lowest="min(mean)", highest="max(mean)")
    cells = cells.transform_calculate(
        shade="datum.highest > datum.lowest ? (datum.mean - datum.lowest) / (datum.highest - datum.lowest) : 0.5",
        label=_label(metric),
    ).encode(x=setting_axis(alt.X, frame, "column" if two else "row"))
    if two:
        cells = cells.encode(y=setting_axis(alt.Y, frame, "row"))
    fill = alt.Color("mean:Q", scale=alt.Scale(scheme="viridis", reverse=lower), legend=None)
    rectangles = cells.mark_rect(cornerRadius=3).encode(color=fill, tooltip=setting_tips(frame, metric)).properties(name=ROWS)
    outline = cells.mark_rect(cornerRadius=3, filled=False, strokeWidth=4, stroke=OUTLINE).transform_filter("datum.chosen")
    if frame["column" if two else "row"].nunique() > MOST_LABELLED:
        return layered(rectangles, outline, height=height)
    bright = "datum.shade < 0.55" if lower else "datum.shade > 0.55"
    ink = alt.ColorValue("#ffffff", condition=when(bright, "#10141a"))
    upward = LINE_HEIGHT * (_most_lines(frame) - 1) / 2
    text = cells.mark_text(lineBreak="\n", lineHeight=LINE_HEIGHT, dy=-upward, baseline="middle").encode(text="label:N", color=ink)
    return layered(rectangles, outline, text, height=height)


def setting_axis(channel: type[Channel], frame: pd.DataFrame, name: str) -> Channel:
    """An axis of settings, evenly spaced in their order. name: `row` or `column`."""
    title = str(frame[f"{name}_axis"].iloc[0])
    order = sorted(dict.fromkeys(frame[name]), key=in_order)
    axis = alt.Axis(ticks=False, domain=False, labelAngle=0, labelOverlap=True)
    return channel(f"{name}:N", title=AXIS_WORDS.get(title, title), sort=order, axis=axis)


def setting_tips(frame: pd.DataFrame, metric: Metric) -> list[alt.Tooltip]:
    """What a mark of a sweep says when it is pointed at."""
    form = value_format(metric)
    return [
        alt.Tooltip("setting:N"),
        alt.Tooltip("mean:Q", title=f"{part_words(frame)} {metric.heading}", format=form),
        alt.Tooltip("sd:Q", title="sd over seeds", format=form),
        alt.Tooltip("n:Q", title="seeds"),
        alt.Tooltip("chosen_share:Q", title="chosen by a bootstrap over seeds", format=".0%"),
    ]


def _most_lines(frame: pd.DataFrame) -> int:
    """How many lines the fullest cell has (`_label`)."""
    return 1 + int(frame["sd"].notna().any()) + int(frame["chosen_share"].notna().any())


def _label(metric: Metric) -> str:
    """The lines of a cell, as an expression: mean, spread, and how often it would be chosen where that is known."""
    form = "'.1f'" if metric.unit == "share" else "'.3g'"
    number = f"format(datum.mean * {metric.factor}, {form})"
    spread = f"isValid(datum.sd) ? '\\n± ' + format(datum.sd * {metric.factor}, {form}) : ''"
    share = "isValid(datum.chosen_share) ? '\\n' + format(datum.chosen_share, '.0%') : ''"
    return f"{number} + ({spread}) + ({share})"
