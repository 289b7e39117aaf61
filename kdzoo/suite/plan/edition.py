"""Editions of the benchmark: pairs, recipes, methods and versions that are frozen under a name (`configs/editions`). Free of torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Annotated, Any

from pydantic import BeforeValidator

from kdzoo.errors import InputError, unknown
from kdzoo.runs.canonical import canonical_json
from kdzoo.runs.fields import Count, Integer, Spec, as_tuple, parse
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import Run
from kdzoo.suite.plan.config import Names
from kdzoo.suite.plan.yaml_files import read_yaml, shipped_files

DIGITS = 12
"""hex digits of a recipe's digest"""


class EditionTable(Spec):
    """What may stand in one kind of table: networks by name, data by content, the recipe of students by digest, teachers by runs."""

    pairs: Names
    data: str
    fingerprint: str
    recipe: str
    digest: str
    teachers: Names
    limit: Count | None = None


class Edition(Spec):
    """A frozen edition. packages: versions without what stands behind a plus; methods: the version of each."""

    engine: Integer
    packages: dict[str, str]
    tables: Annotated[tuple[EditionTable, ...], BeforeValidator(as_tuple)]
    methods: dict[str, str]

    def misfits(self, run: Run, about: Mapping[str, Any]) -> Iterator[str]:
        """Why a run is not one of this edition, a line each; nothing where it is."""
        if run.engine != self.engine:
            yield f"engine {run.engine}, not {self.engine}"
        for term in run.objective.all_terms:
            frozen = self.methods.get(term.method)
            if frozen is None:
                yield f"method {term.method}: not in this edition"
            elif term.version != frozen:
                yield f"method {term.method}: version {term.version}, not {frozen}"
        yield from self._misfits_of_table(run, str(about.get("pair")))

    def _misfits_of_table(self, run: Run, pair: str) -> Iterator[str]:
        of_pair = [table for table in self.tables if pair in table.pairs]
        if not of_pair:
            known = sorted({one for table in self.tables for one in table.pairs})
            yield f"pair {pair}: not in this edition, which has {', '.join(known)}"
            return
        faults = [list(_misfits_of(run, table)) for table in of_pair]
        yield from min(faults, key=len)

    def other_packages(self, versions: Mapping[str, Any]) -> Iterator[str]:
        """Which packages have other versions than this edition's."""
        for name, frozen in self.packages.items():
            present = str(versions.get(name)).partition("+")[0]
            if present != frozen:
                yield f"{name} {present}, not {frozen}"


def _misfits_of(run: Run, table: EditionTable) -> Iterator[str]:
    """Why a run does not belong into one table."""
    digest, teacher = recipe_digest(run.recipe), run.teacher.start.removeprefix("run:") if run.teacher else None
    for what, value, frozen in (
        ("data", run.data.fingerprint, table.fingerprint),
        ("limit", run.data.limit, table.limit),
        ("recipe", digest, table.digest),
    ):
        if value != frozen:
            yield f"{what} {value}, not {frozen} ({table.data}, {table.recipe})"
    if run.data.transfer is not None or run.data.label_fraction != 1:
        yield "taught on a transfer set of its own"
    if teacher is not None and teacher not in table.teachers:
        yield f"teacher {teacher}, not {' or '.join(table.teachers)}"


def recipe_digest(recipe: Recipe) -> str:
    """What an edition knows a recipe by: all of its numbers."""
    return hashlib.sha256(canonical_json(recipe.model_dump(mode="json")).encode()).hexdigest()[:DIGITS]


def read_edition(name: str) -> Edition:
    """An edition by its name; raises InputError with the nearest one."""
    files = shipped_files("editions")
    if name not in files:
        raise InputError(unknown("edition", name, files))
    return parse(Edition, read_yaml(files[name]), f"edition {name}")


def misfits_here(name: str, runs: Iterable[tuple[Run, Mapping[str, Any]]]) -> list[str]:
    """Why planned runs, with what is recorded beside each, would not be of an edition if they were trained here: each reason once."""
    edition = read_edition(name)
    reasons = [*edition.other_packages({package: version(package) for package in edition.packages})]
    reasons += [reason for run, about in runs for reason in edition.misfits(run, about)]
    return [f"edition {name}: {reason}" for reason in dict.fromkeys(reasons)]
