"""The kinds of charts by name."""

from __future__ import annotations

from enum import StrEnum


class ChartKind(StrEnum):
    """What a chart shows of a bench."""

    surface = "surface"
    slices = "slices"
    forest = "forest"
    pareto = "pareto"
    curves = "curves"
    classes = "classes"
    reliability = "reliability"
    agreement = "agreement"
