"""Whether two lists of classes are the same, in the same order. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

SHOWN = 3
"""classes that are named in a message before the rest is left to three dots"""


def numbered(names: Sequence[str]) -> bool:
    """Whether classes are named by nothing but their places, as those of arrays are."""
    return list(names) == [str(place) for place in range(len(names))]


def same_classes(theirs: Sequence[str] | None, ours: Sequence[str]) -> bool | None:
    """Whether the names agree place by place, without case, blanks and signs (`name_key`); None where a side has none."""
    if theirs is None:
        return None
    key = name_key(theirs, ours)
    if list(map(key, theirs)) == list(map(key, ours)):
        return True
    return None if numbered(theirs) != numbered(ours) and len(theirs) == len(ours) else False


def difference(theirs: Sequence[str], ours: Sequence[str], where: str) -> str:
    """How a network's classes differ from those of the data `where`: the first places, and both lists."""
    key = name_key(theirs, ours)
    apart = [place for place, (one, other) in enumerate(zip(theirs, ours, strict=False)) if key(one) != key(other)]
    first = "; ".join(f"class {place} is {theirs[place]!r}, in {where} {ours[place]!r}" for place in apart[:SHOWN])
    moved = {*map(key, theirs)} == {*map(key, ours)}
    words = "has the same classes in another order" if moved else "was trained on other classes"
    return f"{words} ({first}{'; ...' if len(apart) > SHOWN else ''}): its classes: {listed(theirs)}; those of {where}: {listed(ours)}"


def listed(names: Sequence[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:10]) + (f", ... ({len(names)} in all)" if len(names) > 10 else "")


def name_key(theirs: Sequence[str], ours: Sequence[str]) -> Callable[[str], str]:
    """What names of classes are compared by: letters and digits in lower case, unless two of them (A+, A-) differ in signs alone."""
    return _plain if all(len(set(map(_plain, names))) == len(names) for names in (theirs, ours)) else str


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold()) or name
