"""What all charts share: the colours, the words of axes, and the name of the marks that stand for rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from kdzoo.suite.page.frames.series import OTHERS
from kdzoo.tasks.task import Metric

ROWS = "rows"
"""the name of every chart's data, and of the layer that has one mark for each of its rows"""
STEP = 22
"""pixels of a row of a chart with a row a method"""

INK = "#1b2129"
"""the colour of text in a file, which has no text around it"""
BLUE, ORANGE, GREEN, RED, GREY = "#2f7fd1", "#c9701f", "#2b8f5b", "#d04a58", "#7d8690"
PALETTE = (BLUE, ORANGE, GREEN, "#9163d0", RED, "#1b8c93", "#c45597", "#84801f")
"""colours with a contrast of 3 or more on white and on the page's dark ground"""
OUTLINE = "#e8590c"
"""the frame of a cell that was chosen, on any colour of a heat map"""
CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif",
    "view": {"stroke": "transparent"},
    "axis": {
        "labelColor": "currentColor", "titleColor": "currentColor", "tickColor": "currentColor", "domainColor": "currentColor",
        "gridColor": "currentColor", "gridOpacity": 0.14, "tickOpacity": 0.4, "domainOpacity": 0.4,
        "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "titlePadding": 8, "labelLimit": 160, "labelSeparation": 6,
    },
    "legend": {
        "labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 11, "titleFontSize": 11, "labelLimit": 220,
        "symbolOpacity": 1,
    },
    "title": {"color": "currentColor", "fontSize": 12, "anchor": "start", "subtitleColor": "currentColor", "subtitleFontSize": 11},
    "text": {"color": "currentColor", "fontSize": 11},
    "rule": {"color": "currentColor"},
    "mark": {"color": BLUE},
    "range": {"category": list(PALETTE)},
    "aria": False,
}  # fmt: skip
"""the look of all charts: ink is the colour of the text around them, so that light, dark and print need one chart.

aria: the page says what a chart shows, and has its numbers as a table.
"""


def base() -> alt.Chart:
    """A chart of the data named ROWS."""
    return alt.Chart(alt.NamedData(name=ROWS))


def value_format(metric: Metric) -> str:
    """How an axis and a tooltip write the values of a metric."""
    return ".2%" if metric.unit == "share" else ".4g"


def axis_format(metric: Metric) -> str:
    return "~%" if metric.unit == "share" else "~r"


def difference_axis(metric: Metric, **properties: Any) -> alt.Axis:
    """An axis of differences, in points where the metric is a share."""
    return alt.Axis(labelExpr=difference_words(metric), **properties)


def difference_words(metric: Metric) -> str:
    """The label of a difference on an axis or in a legend, with its sign, as an expression."""
    return f"datum.value == 0 ? '0' : format(datum.value * {metric.factor}, '+~g')"


def end_words(metric: Metric) -> str:
    """The same for the ends of a scale, which are measured differences and no round numbers: three digits."""
    return difference_words(metric).replace("'+~g'", "'+.3~r'")


def difference_tip(field: str, title: str, metric: Metric) -> alt.Tooltip:
    """A difference in a tooltip, from a field in the metric's reader's unit (`in_reader_units`)."""
    return alt.Tooltip(f"{field}_shown:Q", title=title, format="+.2f" if metric.unit == "share" else "+.4g")


def in_reader_units(chart: alt.Chart, fields: Sequence[str], metric: Metric) -> alt.Chart:
    """The chart with every field again as FIELD_shown, multiplied for a reader."""
    return chart.transform_calculate(**{f"{field}_shown": f"datum['{field}'] * {metric.factor}" for field in fields})


def when(test: str, value: str | float) -> dict[str, Any]:
    """A condition of a channel: the value where an expression holds for a row."""
    return {"test": test, "value": value}


def layered(*parts: alt.Chart, height: int) -> alt.LayerChart:
    """Charts on top of each other, the first at the bottom. height: in pixels."""
    return alt.LayerChart(layer=list(parts)).properties(height=height)


def series_colour(frame: pd.DataFrame, symbol: str) -> alt.Color:
    """The colours of a frame's `colour` column: one for each name, grey for OTHERS."""
    names = sorted(dict.fromkeys(frame["colour"]), key=OTHERS.__eq__)
    colours = [GREY if name == OTHERS else PALETTE[at] for at, name in enumerate(names)]
    legend = alt.Legend(orient="top", title=None, symbolType=symbol, symbolStrokeWidth=2.5, columns=3)
    return alt.Color("colour:N", scale=alt.Scale(domain=names, range=colours), legend=legend)
