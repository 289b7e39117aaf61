"""The text that names one of timm's augmentation policies, such as `rand-m9-mstd0.5-inc1`, read strictly. Free of torch and of timm.

timm reads the same text, but passes over most sections that it does not know, and takes the last or the first of two that contradict
each other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from kdzoo.errors import add_clause, did_you_mean

EXAMPLES = "rand-m9-mstd0.5-inc1, augmix-m5-w4-d2, original-mstd0.5, v0 or 3a"
NUMBER = re.compile(r"\d{1,4}(\.\d{1,3})?")
SETS = ("weights", "3a", "3aw")
"""timm's sets of RandAugment's operations that have a name: by weight, and those of DeiT III"""
ENDLESS_DEVIATION = 100
"""a deviation of magnitudes above which timm draws them evenly from 0 to the magnitude"""


@dataclass(frozen=True)
class Section:
    """A number within the text of a policy: what it has where it is not written, and from where to where it may lie."""

    default: float
    low: float
    high: float
    whole: bool = True

    def read(self, text: str) -> float | None:
        """The number that a text is; None where it is none that may stand here."""
        value = float(text) if NUMBER.fullmatch(text) else math.nan
        return value if self.low <= value <= self.high and not (self.whole and value % 1) else None


DEVIATION = Section(0.0, 0, 9999, whole=False)
AUTO_AUGMENT: Mapping[str, Section] = {"mstd": DEVIATION}
POLICIES: Mapping[str, Mapping[str, Section]] = {
    "rand": {
        "m": Section(10, 0, 30),
        "n": Section(2, 1, 10),
        "p": Section(0.5, 0, 1, whole=False),
        "mstd": DEVIATION,
        "mmax": Section(10, 1, 30),
        "inc": Section(0, 0, 1),
    },
    "augmix": {
        "m": Section(3, 0, 10),
        "w": Section(3, 1, 10),
        "d": Section(-1, 1, 10),
        "a": Section(1.0, 0.1, 100, whole=False),
        "b": Section(0, 0, 1),
        "mstd": Section(math.inf, 0, 9999, whole=False),
    },
    **dict.fromkeys(("original", "originalr", "v0", "v0r", "3a"), AUTO_AUGMENT),
}
"""timm's policies and the numbers that each takes, in the order in which they are written"""


def canonical_policy(text: str) -> str:
    """The one text of all that mean the same policy: sections in a fixed order, without those that state a default.

    Raises ValueError for an unknown policy, an unknown section, a number out of reach, and a section that stands twice.
    """
    head, *parts = text.split("-")
    if head not in POLICIES:
        known = f"known: {', '.join(POLICIES)}, such as {EXAMPLES}"
        raise ValueError(add_clause(f"unknown policy {text!r}{did_you_mean(head, POLICIES)}", known))
    found: dict[str, str] = {}
    for part in parts:
        name, value = _section(head, part)
        if name in found:
            raise ValueError(f"{text!r}: {name!r} stands twice")
        found[name] = value
    if "t" in found:
        found.pop("inc", None)  # a set with a name says itself which operations increase
    order = [*POLICIES[head], "t"]
    return "-".join([head, *(f"{name}{found[name]}" for name in order if found.get(name))])


def _section(head: str, part: str) -> tuple[str, str]:
    """The name of a section and its value as it is written, empty where that is the default."""
    sections = POLICIES[head]
    name = next((name for name in sorted(sections, key=len, reverse=True) if re.fullmatch(rf"{name}\d.*", part)), None)
    if head == "rand" and name is None and part.startswith("t"):
        if part[1:] not in SETS:
            raise ValueError(f"{head}: expected t with one of {', '.join(SETS)}, got {part!r}")
        return "t", part[1:]
    if name is None:
        takes = [f"{name}NUMBER" for name in sections] + (["tNAME"] if head == "rand" else [])
        raise ValueError(f"{head}: unknown section {part!r}; it takes {', '.join(takes)}, such as {EXAMPLES}")
    section = sections[name]
    value = section.read(part.removeprefix(name))
    if value is None:
        kind = "a whole number" if section.whole else "a number"
        raise ValueError(f"{head}: {name}: expected {kind} from {section.low:g} to {section.high:g}, got {part.removeprefix(name)!r}")
    if name == "mstd" and value > ENDLESS_DEVIATION and head == "rand":
        value = ENDLESS_DEVIATION + 1
    return name, "" if value == section.default else f"{value:.10g}"
