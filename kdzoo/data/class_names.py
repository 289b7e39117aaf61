"""Whether two lists of classes are the same, in the same order. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

SHOWN = 3
"""classes that are named in a message before the rest is left to three dots"""


def are_numbers(names: Sequence[str]) -> bool:
    """Whether classes are named by nothing but their places, as those of arrays are."""
    return list(names) == [str(place) for place in range(len(names))]


def same_classes(names: Sequence[str] | None, expected: Sequence[str]) -> bool | None:
    """Whether the names agree place by place, without case, blanks and signs (`name_key`); None where a side has none."""
    if names is None:
        return None
    key = name_key(names, expected)
    if list(map(key, names)) == list(map(key, expected)):
        return True
    return None if are_numbers(names) != are_numbers(expected) and len(names) == len(expected) else False


def difference(names: Sequence[str], expected: Sequence[str], where: str) -> str:
    """How a network's classes differ from those of the data `where`: the first places, and both lists."""
    key = name_key(names, expected)
    places = [place for place, (one, other) in enumerate(zip(names, expected, strict=False)) if key(one) != key(other)]
    first = "; ".join(f"class {place} is {names[place]!r}, in {where} {expected[place]!r}" for place in places[:SHOWN])
    same_set = {*map(key, names)} == {*map(key, expected)}
    words = "has the same classes in another order" if same_set else "was trained on other classes"
    more = "; ..." if len(places) > SHOWN else ""
    return f"{words} ({first}{more}): its classes: {first_names(names)}; those of {where}: {first_names(expected)}"


def first_names(names: Sequence[str]) -> str:
    """The first of many names."""
    return ", ".join(names[:10]) + (f", ... ({len(names)} in all)" if len(names) > 10 else "")


def name_key(names: Sequence[str], expected: Sequence[str]) -> Callable[[str], str]:
    """What names of classes are compared by: letters and digits in lower case, unless two of them (A+, A-) differ in signs alone."""
    return _plain if all(len(set(map(_plain, names))) == len(names) for names in (names, expected)) else str


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold()) or name
