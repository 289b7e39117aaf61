"""The same pixels more than once: in two parts, under two labels, or again within the training part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdzoo.text import number_of

Keys = NDArray[Any]
"""digests of pixels alone, (N, 2) of 8 bytes each"""
EXAMPLES = 2

Pair = tuple[int, int]


@dataclass(frozen=True)
class Repeat:
    """How many samples have the pixels of another, and some of them by place, each beside the other."""

    count: int = 0
    examples: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Repeats:
    """Samples that occur more than once. shared: of two parts, the samples of the second that the first has too."""

    shared: Mapping[str, Repeat] = field(default_factory=dict)
    two_labels: Repeat = Repeat()
    copies: Repeat = Repeat()

    def sentences(self, name: Callable[[int], str], noun: str = "image") -> list[str]:
        """A sentence for each kind of repeat; `name` gives the name of a sample at a place, `noun` says what a sample is."""
        nouns = {"val": f"validation {noun}", "test": f"test {noun}"}
        sentences = []
        for parts, one in self.shared.items():
            first, second = parts.split("/")
            sentences.append(f"in the {first} part too: {number_of(one.count, nouns[second])}{_examples(one, name)}")
        if self.two_labels.count:
            sentences.append(f"under two labels: {number_of(self.two_labels.count, noun)}{_examples(self.two_labels, name)}")
        if self.copies.count:
            copies = number_of(self.copies.count, f"training {noun}")
            sentences.append(
                f"again in the train part, perhaps on both sides of a validation split: {copies}{_examples(self.copies, name)}"
            )
        return sentences


def find_repeats(keys: Keys, labels: NDArray[np.int64], parts: Sequence[tuple[str, range]]) -> Repeats:
    """The repeats among samples whose parts follow each other in `parts`, places counted through all of them."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    equal = (keys[order[1:]] == keys[order[:-1]]).all(1)
    shared: dict[str, list[Pair]] = {}
    two_labels: list[Pair] = []
    copies: list[Pair] = []
    for group in _groups(order, equal):
        by_part = {name: [place for place in group if place in places] for name, places in parts}
        if other := [place for place in group if labels[place] != labels[group[0]]]:
            two_labels.append((group[0], other[0]))
        for first, second in (("train", "test"), ("train", "val"), ("val", "test")):
            if by_part.get(first) and by_part.get(second):
                shared.setdefault(f"{first}/{second}", []).extend((by_part[first][0], place) for place in by_part[second])
        copies += [(by_part["train"][0], place) for place in by_part["train"][1:]]
    return Repeats({parts: _repeat(pairs) for parts, pairs in shared.items()}, _repeat(two_labels), _repeat(copies))


def _groups(order: NDArray[np.int64], equal: NDArray[np.bool_]) -> list[list[int]]:
    """The places of equal keys, for every key that occurs more than once; each in ascending order, and so are the groups."""
    starts = np.flatnonzero(equal & ~np.concatenate([[False], equal[:-1]]))
    groups = []
    for start in starts.tolist():
        end = start + 1
        while end < len(equal) and equal[end]:
            end += 1
        groups.append(sorted(order[start : end + 1].tolist()))
    return sorted(groups)


def _repeat(pairs: Sequence[Pair]) -> Repeat:
    return Repeat(len(pairs), tuple(pairs[:EXAMPLES]))


def _examples(repeat: Repeat, name: Callable[[int], str]) -> str:
    return f" ({', '.join(f'{name(first)} = {name(second)}' for first, second in repeat.examples)})"
