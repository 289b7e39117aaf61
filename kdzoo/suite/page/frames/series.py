"""What the settings of a table are called in a chart, and which of them have a colour of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kdzoo.suite.plan.config import KD, NONE
from kdzoo.suite.report.blocks import Block, Standing
from kdzoo.suite.report.cells import method_words

COLOURS = 8
"""number of settings with a colour of their own"""
OTHERS = "others"
"""the word for all that have none"""


def names_of(standings: Sequence[Standing]) -> list[str]:
    """The methods in words, with the setting where one method stands there with several."""
    several = {name for name, count in Counter(standing.record.method for standing in standings).items() if count > 1}
    return [_name(standing, standing.record.method in several) for standing in standings]


def _name(standing: Standing, with_setting: bool) -> str:
    words = method_words(standing.record.method)
    return f"{words} {standing.setting}" if with_setting and standing.setting else words


def colours_of(block: Block) -> dict[str, str]:
    """The name that a setting's colour stands for: its own for the controls and the best, OTHERS for the rest."""
    done = [standing for standing in block.standings if standing.done]
    names = dict(zip(names_of(done), done, strict=True))

    def order(name: str) -> tuple[bool, bool, float]:
        standing = names[name]
        control = standing.record.method in (KD, NONE)
        return (not control, standing.collapsed is not None, -standing.metric.sign * standing.mean)

    coloured = sorted(names, key=order)[:COLOURS]
    return {name: name if name in coloured else OTHERS for name in names}
