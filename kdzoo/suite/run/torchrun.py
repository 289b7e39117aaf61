"""Processes that `torchrun` has started, on one machine or several: the first runs the command, the others train with it. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Which of `count` processes this is, and which of those on its machine."""

    rank: int
    local_rank: int
    count: int


def place_of(environment: Mapping[str, str]) -> Place | None:
    """What torchrun's variables say; None where this process was not started by it, or alone."""
    if "TORCHELASTIC_RUN_ID" not in environment:
        return None
    place = Place(int(environment["RANK"]), int(environment["LOCAL_RANK"]), int(environment["WORLD_SIZE"]))
    return place if place.count > 1 else None
