"""Every healthy row of a table against one control."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdzoo.suite.report.blocks import Block, Standing, position_of
from kdzoo.suite.report.error_model import Contrast, holm


@dataclass(frozen=True)
class Comparisons:
    """A family: every row of a table that is compared against one control. Empty where the control is not among them."""

    standings: tuple[Standing, ...]
    contrast: Contrast | None
    significant: np.ndarray

    @property
    def family(self) -> int:
        return len(self.standings)

    def columns(self, name: str, standing: Standing) -> dict[str, Any]:
        """One row's interval and p-value, and those of the whole family."""
        at = position_of(self.standings, standing)
        if self.contrast is None or at is None:
            return {}
        columns: dict[str, Any] = {}
        for word, family in (("", 1), ("_all", self.family)):
            low, high = self.contrast.interval(family)
            columns |= {f"{name}{word}_low": low[at], f"{name}{word}_high": high[at], f"p_{name}{word}": self.contrast.p(family)[at]}
        return columns | {f"{name}_holm": None if math.isnan(self.contrast.error[at]) else bool(self.significant[at])}

    def detectable(self, standing: Standing) -> float | None:
        at = position_of(self.standings, standing)
        return None if self.contrast is None or at is None else float(self.contrast.detectable[at])


def comparisons(block: Block, control: str) -> Comparisons:
    """Every row of a table that is compared (`Block.compared`) against a control, by the table's error model."""
    position = position_of(block.compared, block.only(control))
    if block.model is None or position is None:
        return Comparisons((), None, np.zeros(0, bool))
    others = [at for at in range(len(block.compared)) if at != position]
    whole = block.model.against(position)
    contrast = Contrast(whole.mean[others], whole.error[others], whole.freedom[others])
    return Comparisons(tuple(block.compared[at] for at in others), contrast, holm(contrast.p()))
