"""Whether two lists of classes are the same, in the same order. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Sequence

SHOWN = 3
"""classes that are named in a message before the rest is left to three dots"""


def numbered(names: Sequence[str]) -> bool:
    """Whether classes are named by nothing but their places, as those of arrays are."""
    return list(names) == [str(place) for place in range(len(names))]


def same_classes(theirs: Sequence[str] | None, ours: Sequence[str]) -> bool | None:
    """Whether the names agree place by place, without case, blanks and dashes; None where a side has none."""
    if theirs is None:
        return None
    if list(map(_plain, theirs)) == list(map(_plain, ours)):
        return True
    return None if numbered(theirs) != numbered(ours) and len(theirs) == len(ours) else False


def difference(theirs: Sequence[str], ours: Sequence[str], where: str) -> str:
    """How a network's classes differ from those of the data `where`: the first places, and both lists."""
    apart = [place for place, (one, other) in enumerate(zip(theirs, ours, strict=False)) if _plain(one) != _plain(other)]
    first = "; ".join(f"class {place} is {theirs[place]!r}, in {where} {ours[place]!r}" for place in apart[:SHOWN])
    moved = {*map(_plain, theirs)} == {*map(_plain, ours)}
    words = "has its classes in another order" if moved else "was trained on other classes"
    return f"{words} ({first}{'; ...' if len(apart) > SHOWN else ''}): its own are {listed(theirs)}; those of {where} are {listed(ours)}"


def listed(names: Sequence[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:10]) + (f", ... ({len(names)} in all)" if len(names) > 10 else "")


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold()) or name
