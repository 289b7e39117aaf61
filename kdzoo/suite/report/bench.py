"""The runs of a bench that count, and notes on those that do not, or that should not stand side by side."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdzoo.errors import InputError, collect_problems
from kdzoo.garbage import uncollected
from kdzoo.runs.spec import Run
from kdzoo.runs.store import KnownRun, Store
from kdzoo.suite.plan.starts import LOOKED_FOR, is_bench
from kdzoo.suite.report.proof import Proof, read_proof
from kdzoo.suite.report.records import Record, by_table, read_record
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.task import Task
from kdzoo.text import number_of

if TYPE_CHECKING:
    from kdzoo.suite.report.blocks import Block


@dataclass(frozen=True)
class BenchRecords:
    """All runs that count, in the order of their ids, and notes on those that had to be left out.

    blocks: its tables, made when they are first asked for. proof: what is known of its runs from elsewhere.
    """

    name: str
    records: tuple[Record, ...]
    notes: tuple[str, ...]
    folder: Path
    proof: Proof | None = None

    def only(self, ids: Container[str]) -> BenchRecords:
        """The bench with the runs of these ids alone."""
        return replace(self, records=tuple(record for record in self.records if record.id in ids))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        from kdzoo.suite.report.grouping import make_blocks  # here: pandas and scipy, which nothing that counts runs waits for

        return make_blocks(self.records)

    @property
    def task(self) -> Task:
        """What its runs learn; classification where there is none."""
        return self.records[0].task if self.records else CLASSIFICATION

    @property
    def portable_notes(self) -> tuple[str, ...]:
        """The notes with files named from the bench's folder on, for a table that may move with it."""
        return tuple(note.replace(f"{self.folder}/", "") for note in self.notes)


@uncollected()
def read_bench(folder: Path, known: Mapping[str, KnownRun] | None = None) -> BenchRecords:
    """The records below a bench's folder. A damaged file becomes a note; it neither stops the table nor is touched.

    Of runs that differ only in the versions of their methods or of the engine the newest count; pretrain stages never do.
    known: runs that were read before.
    """
    store = Store(folder)
    if not is_bench(folder):
        raise InputError(f"{folder}: not a bench (looked for {LOOKED_FOR} in it)")
    records: list[Record] = []
    notes: list[str] = []
    stages: dict[str, Record] = {}
    for run_id in store.ids():
        place = store.run(run_id)
        try:
            record = read_record(place, (known or {}).get(run_id))
        except InputError as error:
            notes.extend(f"{problem}; left out: a bench that plans it writes it again and keeps the file" for problem in error.problems)
            continue
        if record.run.kind == "pretrain":
            stages[record.id] = record
            continue
        records.append(record)
        if record.state == "damaged":
            again = "trains it again" if place.state() == "damaged" else "writes it again"
            notes.append(f"{place.path}/{record.error}; a bench that plans it {again} and keeps the file")
    newest = _newest(records)
    if old := len(records) - len(newest):
        notes.append(f"left out: {number_of(old, 'run')} of older method versions")
    proof = None
    with collect_problems(notes):
        proof = read_proof(folder)
    notes += [*_mixed_versions(newest), *_mixed_teachers(newest, stages), *(proof.notes if proof is not None else ())]
    return BenchRecords(folder.resolve().name, tuple(newest), tuple(notes), folder, proof)


def _newest(records: Sequence[Record]) -> list[Record]:
    """The newest of runs that are equal but for versions: the highest numbers, or for hashes the ones finished last.

    Decided once for all seeds of a setting: some seeds of the old and some of the new version are a sample of neither.
    """
    versions: dict[str, set[tuple[Any, ...]]] = {}
    for record in records:
        versions.setdefault(record.method, set()).add(_versions(record.run))
    if all(len(found) == 1 for found in versions.values()):
        return list(records)
    keys = {record.id: _without_versions_and_seed(record) for record in records}
    newest: dict[tuple[str, ...], tuple[Any, ...]] = {}
    for record in records:
        newest[keys[record.id]] = max(newest.get(keys[record.id], ()), (*_age(record), _versions(record.run)))
    return [record for record in records if newest[keys[record.id]][-1] == _versions(record.run)]


def _without_versions_and_seed(record: Record) -> tuple[str, ...]:
    """Equal for runs that differ in nothing but their seed, the engine and the versions of their methods."""
    others = (part for name, part in record.canonical.items() if name not in ("seed", "engine", "objective"))
    return (*others, _without_versions(record.canonical["objective"]))


@lru_cache
def _without_versions(objective: str) -> str:
    """An objective as JSON, without the versions of its methods."""
    content = json.loads(objective)
    first = content.get("first")
    for term in [*content["terms"], *([first["term"]] if first else [])]:
        term["version"] = ""
    return json.dumps(content)


def _versions(run: Run) -> tuple[Any, ...]:
    return (run.engine, *(term.version for term in run.objective.all_terms))


def _age(record: Record) -> tuple[Any, ...]:
    numbers = tuple(int(term.version) if term.version.isdecimal() else -1 for term in record.run.objective.all_terms)
    return (record.run.engine, numbers, str((record.result or {}).get("finished", "")))


def _mixed_versions(records: Iterable[Record]) -> list[str]:
    """A note for every method of which settings were trained with different versions."""
    versions_of: dict[str, set[str]] = {}
    for record in records:
        for term in record.run.objective.all_terms:
            versions_of.setdefault(term.method, set()).add(term.version)
    return [
        f"{method}: settings of versions {' and '.join(sorted(versions))} stand side by side"
        for method, versions in sorted(versions_of.items())
        if len(versions) > 1
    ]


def _mixed_teachers(records: Iterable[Record], stages: Mapping[str, Record]) -> list[str]:
    """A note for every table whose runs learnt from one teacher by its id, but from different weights: it was trained again.

    stages: the pretrain stages of runs, which a teacher has taught too. Runs of earlier versions do not say who taught them.
    """
    notes = []
    for key, records_there in by_table(records).items():
        students_of: dict[frozenset[str], list[Record]] = {}
        for record in records_there:
            if trainings := _trainings(record, stages):
                students_of.setdefault(trainings, []).append(record)
        count = len(frozenset().union(*students_of))
        if count > 1:
            groups = sorted(students_of.values(), key=lambda group: (-len(group), group[0].id))
            words = [" and ".join(_seeds_of(group)) for group in groups]
            teacher = (groups[0][0].result or {})["teacher"]["name"]
            notes.append(
                f"{key.pair}, {key.recipe}, {key.phase}: the runs were taught by {count} different trainings of teacher {teacher} "
                f"({'; '.join(words)}): what is compared is not the methods alone"
            )
    return notes


def _trainings(record: Record, stages: Mapping[str, Record]) -> frozenset[str]:
    """The digests of the teacher's weights from which a run that is done and its pretrain stage learnt, as far as they are known."""
    if record.result is None or record.result.get("teacher") is None:
        return frozenset()
    first = stages.get(record.run.pretrain_run.id) if record.run.pretrain_run is not None else None
    teachers = [(part.result or {}).get("teacher") or {} for part in (record, first) if part is not None]
    return frozenset(teacher["weights_digest"] for teacher in teachers if teacher.get("weights_digest"))


def _seeds_of(group: Iterable[Record]) -> list[str]:
    """The seeds of each method, in words."""
    seeds: dict[str, set[int]] = {}
    for record in group:
        seeds.setdefault(record.method, set()).add(record.run.seed)
    return [f"{method} seed{'s' * (len(numbers) > 1)} {', '.join(map(str, sorted(numbers)))}" for method, numbers in sorted(seeds.items())]
