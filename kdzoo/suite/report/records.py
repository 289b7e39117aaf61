"""One run as its folder tells it (run.json, result.json, error.txt), and which runs stand in one table. Free of torch and plugins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from kdzoo.data.transfer import transfer_in_words
from kdzoo.errors import InputError
from kdzoo.runs.about import about_faults
from kdzoo.runs.spec import Run, canonical_json
from kdzoo.runs.store import RunFolder, State


class Place(NamedTuple):
    """What has to be equal for two runs to stand in one table; `teacher` is empty where no term reads one."""

    pair: str
    data: str
    recipe: str
    phase: str
    epochs: int
    ground: str
    """data, recipe, student and engine in full: a recipe's name does not say which of its numbers were changed"""
    teacher: str


@dataclass(frozen=True)
class Record:
    """One run: what was planned, in what state it is, and what it came to; `error` says why it failed or what is damaged."""

    run: Run
    about: Mapping[str, Any]
    state: State
    result: Mapping[str, Any] | None
    error: str | None

    @cached_property
    def id(self) -> str:
        return self.run.id

    @property
    def method(self) -> str:
        return self.run.objective.label

    @cached_property
    def setting_key(self) -> str:
        """Equal for runs that differ in nothing but their seed."""
        return canonical_json(self.run.objective.model_dump(mode="json"))

    @cached_property
    def place(self) -> Place:
        run, about = self.run, self.about
        teacher, student = run.teacher, run.student
        ground = {name: getattr(run, name).model_dump(mode="json") for name in ("data", "recipe", "student")} | {"engine": run.engine}
        return Place(
            pair=str(about.get("pair") or f"{teacher.name if teacher else '-'}/{student.name}"),
            data=run.data.name,
            recipe=str(about.get("recipe") or "-"),
            phase=str(about.get("phase") or "sweep"),
            epochs=run.recipe.epochs,
            ground=canonical_json(ground),
            teacher=canonical_json(teacher.model_dump(mode="json")) if teacher else "",
        )


def taught_on(record: Record) -> str:
    """The transfer set of a run in words; empty where its student is taught on all training images."""
    transfer = record.run.data.transfer
    if transfer is None:
        return ""
    names, found = record.about.get("class_names"), record.about.get("data")
    count = found.get("transfer", {}).get("unlabelled") if isinstance(found, dict) else None
    return transfer_in_words(transfer, names if isinstance(names, list) else list(map(str, range(record.run.data.classes))), count)


def by_place(records: Iterable[Record]) -> dict[Place, list[Record]]:
    """The runs of each table, in the order of places and ids.

    A run without a teacher is one run for all pairs with its student, so it stands in each of their tables. The first
    run of a chain has no row.
    """
    records = sorted(records, key=lambda record: record.id)
    tables: dict[Place, list[Record]] = {record.place: [] for record in records if record.place.teacher}
    taught = list(tables)
    for record in records:
        place = record.place
        shared = [other for other in taught if (other.ground, other.phase) == (place.ground, place.phase)]
        for table in [place] if place.teacher or not shared else shared:
            tables.setdefault(table, []).append(record)
    return {place: tables[place] for place in sorted(tables)}


def read_record(folder: RunFolder) -> Record:
    """One run's record; raises InputError when its run.json does not say which run it is."""
    file = folder.path / "run.json"
    try:
        run, about = folder.read_plan()
    except (TypeError, ValueError) as error:
        raise InputError(f"{file}: damaged (about: expected an object, {error})") from error
    if faults := about_faults(about):
        return Record(run, {}, "damaged", None, f"run.json: damaged ({'; '.join(faults)})")
    if (folder.path / "result.json").exists():
        return _ended(folder, run, about)
    state = folder.state()
    if state == "failed":
        return Record(run, about, state, None, folder.failure())
    return Record(run, about, state, None, None)


def _ended(folder: RunFolder, run: Run, about: Mapping[str, Any]) -> Record:
    """The record of a run that has a result.json, whole or damaged."""
    try:
        result = folder.result()
    except InputError as error:
        return Record(run, about, "damaged", None, error.problems[0].removeprefix(f"{folder.path}/"))
    return Record(run, about, "done", result, None)
