"""Names beside points: which points bear theirs, and on which side, so that no name covers another."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import altair as alt
import pandas as pd

WIDTH, PADDING = 280, 20
"""pixels of a narrow chart's plane, and of what its scales leave free at each end: on wider ones names lie farther apart"""
LETTER, LINE = 6.4, 13
"""pixels that a letter and a line of text take"""


@dataclass(frozen=True)
class Side:
    """Where a name lies as seen from its point. dx, dy: pixels to the right and downwards."""

    align: Literal["left", "right"]
    dx: int
    dy: int

    def box(self, x: float, y: float, name: str) -> tuple[float, float, float, float]:
        """The pixels that a name takes there: left, right, top, bottom."""
        width = LETTER * len(name)
        left = x + self.dx - (width if self.align == "right" else 0)
        return left, left + width, y + self.dy - LINE / 2, y + self.dy + LINE / 2


SIDES = (Side("left", 7, -7), Side("right", -7, -7), Side("left", 7, 8), Side("right", -7, 8))
"""in the order in which they are tried"""


def name_layers(
    points: alt.Chart, frame: pd.DataFrame, named: pd.Index, x: str, y: str, name: str, *, height: int, log_x: bool = False
) -> list[alt.Chart]:
    """A layer of names for every side that some lie on. points: the rows of the frame on their axes; x, y, name: its columns.

    named: which rows are to bear their names, the most important first; one that finds no place goes without.
    """
    columns = [column for column in frame.columns if column in ("pair", "setting", name)]
    places = pd.DataFrame({"x": _along(frame[x], WIDTH, log=log_x), "y": _along(frame[y], height)}, index=frame.index).loc[named]
    sides = sides_of(list(frame.loc[named, name]), list(places["x"]), list(height - places["y"]))
    key = " + '|' + ".join(f"datum['{column}']" for column in columns)
    layers = []
    for side in SIDES:
        here = frame.loc[[row for row, one in zip(named, sides, strict=True) if one == side], columns]
        if keys := ["|".join(map(str, row)) for row in here.itertuples(index=False)]:
            there = points.transform_filter(f"indexof({json.dumps(keys)}, {key}) >= 0")
            layers.append(there.mark_text(align=side.align, dx=side.dx, dy=side.dy).encode(text=f"{name}:N"))
    return layers


def sides_of(names: Sequence[str], xs: Sequence[float], ys: Sequence[float]) -> list[Side | None]:
    """A side for each name such that none covers another or leaves the plane to the left or right; None where no side is free."""
    boxes: list[tuple[float, float, float, float]] = []
    found: list[Side | None] = []
    for name, x, y in zip(names, xs, ys, strict=True):
        side = next((one for one in SIDES if _is_free(one.box(x, y, name), boxes)), None)
        found.append(side)
        if side is not None:
            boxes.append(side.box(x, y, name))
    return found


def _is_free(box: tuple[float, float, float, float], boxes: Sequence[tuple[float, float, float, float]]) -> bool:
    left, right, top, bottom = box
    inside = left >= 0 and right <= WIDTH
    return inside and all(right <= there[0] or there[1] <= left or bottom <= there[2] or there[3] <= top for there in boxes)


def _along(values: pd.Series, length: int, *, log: bool = False) -> list[float]:
    """Where values lie along an axis of some pixels, from its start."""
    numbers = [math.log(value) if log else float(value) for value in values]
    low, high = min(numbers), max(numbers)
    return [PADDING + (length - 2 * PADDING) * ((number - low) / (high - low) if high > low else 0.5) for number in numbers]
