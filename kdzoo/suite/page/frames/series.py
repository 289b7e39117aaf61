"""What the settings of a table are called in a chart, and which of them have a colour of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from kdzoo.suite.plan.config import KD, NONE
from kdzoo.suite.report.blocks import Block, Standing
from kdzoo.suite.report.cells import method_words

COLOURS = 8
"""number of settings with a colour of their own"""
OTHERS = "others"
"""the word for all that have none"""


def row_names(methods: Iterable[str], settings: Iterable[str]) -> list[str]:
    """Methods in words, each with its setting where the same method is there with several."""
    pairs = list(zip(methods, settings, strict=True))
    several = {name for name, count in Counter(name for name, _ in dict.fromkeys(pairs)).items() if count > 1}
    return [f"{method_words(name)} {setting}" if name in several and setting else method_words(name) for name, setting in pairs]


def names_of(standings: Sequence[Standing]) -> list[str]:
    """What the settings of a table are called (`row_names`)."""
    return row_names([standing.record.method for standing in standings], [standing.setting for standing in standings])


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
