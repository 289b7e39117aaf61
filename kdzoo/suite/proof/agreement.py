"""Whether a run that was trained again agrees with what was recorded. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kdzoo.runs.flatten import flatten
from kdzoo.suite.proof.reference import Spread
from kdzoo.tasks.task import Metric

Verdict = Literal["agrees", "disagrees", "not comparable"]
By = Literal["bits", "spread"]

DECIDED = ("last", "best", "train", "average")
"""the parts of a result that its run decides; clocks, caches and environments differ from day to day"""

BOUND = 3 * math.sqrt(2)
"""how many standard deviations two runs may lie apart: three of their difference"""


@dataclass(frozen=True)
class Agreement:
    """How a run came out. by: what was compared; text: for a reader, without the verdict."""

    verdict: Verdict
    by: By | None
    text: str


def same_bits(recorded: Mapping[str, Any], trained: Mapping[str, Any]) -> Agreement:
    """Whether all numbers that a run decides are the same to the last bit, as far as both results have them."""
    differing = list(differences(recorded, trained))
    if not differing:
        return Agreement("agrees", "bits", "to the last bit")
    name, one, other = differing[0]
    more = f", and {len(differing) - 1} more" if len(differing) > 1 else ""
    return Agreement("disagrees", "bits", f"{name}: {one} recorded, {other} trained{more}; here the same bits were expected")


def differences(recorded: Mapping[str, Any], trained: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The numbers in which two results differ, with their names; the headlines' part first."""
    one, other = (flatten({part: result.get(part) for part in DECIDED}) for result in (recorded, trained))
    for name in one:
        if name in other and one[name] is not None and other[name] is not None and one[name] != other[name]:
            yield name, one[name], other[name]


def within_spread(
    recorded: Mapping[str, Any], trained: Mapping[str, Any], spreads: Mapping[str, Spread | None], metric: Metric, why: str
) -> Agreement:
    """Whether the headline lies within BOUND standard deviations on every part whose spread is known.

    why: why the bits need not be the same.
    """
    known = {part: spread for part, spread in spreads.items() if spread is not None and _value(recorded, part, metric) is not None}
    if not known:
        return Agreement("not comparable", None, f"{why}, and no spread of five seeds or more is known of this setting")
    words, apart = [], False
    for part, spread in known.items():
        one, other = _value(recorded, part, metric), _value(trained, part, metric)
        assert one is not None
        if other is None or abs(one - other) > BOUND * spread.sd:
            apart = True
        words.append(
            f"{part} {metric.heading} {metric.text(one)} recorded, {'nothing' if other is None else metric.text(other)} trained, "
            f"bound {metric.spread_text(BOUND * spread.sd)} ({spread.source}, {spread.count} seeds)"
        )
    return Agreement("disagrees" if apart else "agrees", "spread", f"{'; '.join(words)}; {why}")


def _value(result: Mapping[str, Any], part: str, metric: Metric) -> float | None:
    metrics = result["last"].get(part)
    return None if metrics is None else metrics.get(metric.name)
