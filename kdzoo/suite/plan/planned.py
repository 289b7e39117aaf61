"""A plan: every distinct run of a bench, with what is recorded beside it. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kdzoo.runs.spec import Run
from kdzoo.runs.store import Store


@dataclass(frozen=True)
class PlannedRun:
    """A run and what is recorded beside it.

    provisional: whether a weight of it depends on a ratio that is not measured yet. It then has a stand-in for that weight,
    for checks and estimates alone: its id means nothing and it is never written.
    """

    run: Run
    about: Mapping[str, Any]
    provisional: bool = False


@dataclass(frozen=True)
class Plan:
    """Every distinct run of a bench, the teachers that have to be trained for it, and how the grid came down to them."""

    name: str
    folder: Path
    students: tuple[PlannedRun, ...]
    teachers: Mapping[str, PlannedRun]
    grid_size: int
    duplicates: Mapping[str, int] = field(default_factory=dict)
    """how many points of the grid are another's run, by the reason"""
    data: Mapping[str, Any] = field(default_factory=dict)
    """what the data set holds (`report.data_record`)"""
    notes: tuple[str, ...] = ()
    """for a reader, before any work"""
    unmeasured: tuple[PlannedRun, ...] = ()
    """what has to be measured before provisional runs have their weights (`kdzoo.training.doses`), each once"""

    @cached_property
    def store(self) -> Store:
        return Store(self.folder)
