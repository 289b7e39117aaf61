"""A run with the places of what it was planned from: its folder, and where its data and weights lie."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from kdzoo.contract.build_objective import terms_of
from kdzoo.contract.objective import Term
from kdzoo.data.known import absolute
from kdzoo.runs.spec import Run
from kdzoo.runs.store import RunFolder


@dataclass(frozen=True)
class LocatedRun:
    """A run with what it was planned from: its folder, and where its data and weights lie."""

    run: Run
    folder: RunFolder
    paths: Mapping[str, Any]

    @staticmethod
    def read(folder: RunFolder, places: Mapping[str, str] | None = None) -> LocatedRun:
        """A run as its folder has it. places: where its data lie now, as far as they have moved (`moved_to`)."""
        run, about = read_plan_at(folder, places or {})
        return LocatedRun(run, folder, about["paths"])

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """The methods of the run, which all its objectives share; raises InputError for one that is unknown or of another version."""
        return terms_of(self.run.objective)


def read_plan_at(folder: RunFolder, places: Mapping[str, str]) -> tuple[Run, dict[str, Any]]:
    """A run and what is recorded beside it, with its data where they lie now: their content is compared when they are read."""
    run, about = folder.read_plan()
    return run, {**about, "paths": {**about.get("paths", {}), **places}}


def moved_to(data: str | None, data_root: str | None, transfer_data: str | None) -> dict[str, str]:
    """Where a run's data lie now, as its paths have it, so that it is found from any working folder; what is None has not moved."""
    images = {"data": data, "transfer_data": transfer_data}
    places = {name: absolute(request) for name, request in images.items() if request is not None}
    return {**places, **({} if data_root is None else {"data_root": os.path.abspath(os.path.expanduser(data_root))})}


WeightFiles = str | list[str | None] | None
"""the file of a network's weights; of an ensemble a list, where None is a kept teacher; None where no file is named"""


@dataclass(frozen=True)
class Modules:
    """Networks given from Python as objects, by the name that their specification carries."""

    by_name: Mapping[str, nn.Module] = field(default_factory=dict)

    def get(self, name: str) -> nn.Module | None:
        return self.by_name.get(name)


def teacher_key(located: LocatedRun) -> tuple[Any, ...]:
    """What decides a teacher and its predictions: equal keys may share them."""
    return (str(located.run.teacher), *data_key(located))


def data_key(located: LocatedRun) -> tuple[Any, ...]:
    """What decides the data as a run's networks take them: equal keys may share them."""
    recipe = located.run.recipe
    return (located.run.data, recipe.augment.size, recipe.mean, recipe.std)
