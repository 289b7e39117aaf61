"""One run as its folder tells it (run.json, result.json, error.txt), and which runs stand in one table. Free of torch and plugins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, Literal, NamedTuple

from kdzoo.data.transfer import transfer_in_words
from kdzoo.errors import InputError
from kdzoo.runs.about import class_names
from kdzoo.runs.canonical import object_of
from kdzoo.runs.result_file import last_epoch_metrics
from kdzoo.runs.spec import Run
from kdzoo.runs.store import KnownRun, RunFolder, State
from kdzoo.tasks.known import task_named
from kdzoo.tasks.task import Task

SHARED_FIELDS = ("data", "engine", "recipe", "student")


class TableKey(NamedTuple):
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
    """One run: its plan, its state and its result; `error` says why it failed or what is damaged.

    paused: after how many epochs a search within a budget has left it, where it has.
    id: the run's, after which its folder is named. canonical: the run's fields as canonical JSON, by name.
    """

    id: str
    run: Run
    canonical: Mapping[str, str]
    about: Mapping[str, Any]
    state: State
    result: Mapping[str, Any] | None = None
    error: str | None = None
    paused: int | None = None

    @cached_property
    def method(self) -> str:
        return self.run.objective.label

    @property
    def task(self) -> Task:
        return task_named(self.run.data.task)

    def headline(self, part: Literal["val", "test"]) -> float | None:
        """Its task's headline on one part of the data after the last epoch; None where it is not done, or nothing is held out."""
        metrics = self.last_epoch_metrics(part)
        return None if metrics is None else float(metrics[self.task.headline.name])

    def last_epoch_metrics(self, part: Literal["val", "test"]) -> Mapping[str, Any] | None:
        """What was measured on one part of the data after the last epoch; None where it is not done, or nothing is held out."""
        return None if self.result is None else last_epoch_metrics(self.result, part)

    @property
    def setting_key(self) -> str:
        """Equal for runs that differ in nothing but their seed."""
        return self.canonical["objective"]

    @cached_property
    def table_key(self) -> TableKey:
        run, about = self.run, self.about
        return TableKey(
            pair=str(about.get("pair") or f"{run.teacher.name if run.teacher else '-'}/{run.student.name}"),
            data=run.data.name,
            recipe=str(about.get("recipe") or "-"),
            phase=str(about.get("phase") or "sweep"),
            epochs=run.recipe.epochs,
            ground=_ground(*(self.canonical[name] for name in SHARED_FIELDS)),
            teacher=self.canonical["teacher"] if run.teacher else "",
        )


@lru_cache
def _ground(*fields: str) -> str:
    """The canonical JSON of what runs of one table share, the same text for all of them."""
    return object_of(dict(zip(SHARED_FIELDS, fields, strict=True)))


def taught_on(record: Record) -> str:
    """The transfer set of a run in words; empty where its student is taught on all training images."""
    transfer = record.run.data.transfer
    if transfer is None:
        return ""
    classes, data = record.run.data.classes, record.about.get("data")
    count = data.get("transfer", {}).get("unlabelled") if isinstance(data, dict) else None
    return transfer_in_words(transfer, class_names(record.about, classes) or list(map(str, range(classes))), count)


def by_table(records: Iterable[Record]) -> dict[TableKey, list[Record]]:
    """The runs of each table, in the order of keys and ids.

    A run without a teacher is one run for all pairs with its student, so it stands in each of their tables. The first
    run of a chain has no row.
    """
    records = sorted(records, key=lambda record: record.id)
    tables: dict[TableKey, list[Record]] = {record.table_key: [] for record in records if record.table_key.teacher}
    with_teacher = list(tables)
    for record in records:
        key = record.table_key
        shared = [other for other in with_teacher if (other.ground, other.phase) == (key.ground, key.phase)]
        for table in [key] if key.teacher or not shared else shared:
            tables.setdefault(table, []).append(record)
    return {key: tables[key] for key in sorted(tables)}


def read_record(folder: RunFolder, known: KnownRun | None = None) -> Record:
    """One run's record; raises InputError when its run.json does not say which run it is. known: the run, where it was read before."""
    plan = known.plan if known is not None and known.plan is not None and folder.has_plan_of(known) else folder.plan_file()
    record = partial(Record, folder.id, plan.run, plan.parts)
    if plan.faults:
        return record({}, "damaged", error=f"run.json: damaged ({'; '.join(plan.faults)})")
    if known is not None and folder.has_result_of(known):
        return record(plan.about, "done", known.result)
    if folder.has_result():
        try:
            return record(plan.about, "done", folder.result())
        except InputError as error:
            return record(plan.about, "damaged", error=error.problems[0].removeprefix(f"{folder.path}/"))
    state = folder.state()
    failure = folder.failure().error if state == "failed" else None
    return record(plan.about, state, error=failure, paused=folder.paused_after() if state == "paused" else None)
