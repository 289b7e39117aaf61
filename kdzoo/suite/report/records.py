"""The runs of a bench as their folders tell them: run.json, result.json, error.txt. Nothing here needs torch or a plugin."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from kdzoo.data.transfer import transfer_in_words
from kdzoo.errors import InputError
from kdzoo.runs.about import about_faults
from kdzoo.runs.spec import ObjectiveSpec, Run, canonical_json
from kdzoo.runs.store import RunFolder, State, Store
from kdzoo.text import number_of


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


@dataclass(frozen=True)
class Setting:
    """A run's coefficients in the words of the tables; None where a word does not apply.

    coefficient: the factor on the loss of a single term. dose: of that term, or of every term of a sum; None where it was
    not measured.
    """

    temperature: float | None
    alpha: float | None
    weight: float | None
    others: Mapping[str, Any]
    coefficient: float | None = None
    dose: float | None = None

    def __str__(self) -> str:
        words: dict[str, Any] = {"T": self.temperature, "alpha": self.alpha}
        parts = [f"{name}={_short(value)}" for name, value in words.items() if value is not None]
        parts += [text for text in [weight_words(self.alpha, self.weight, self.coefficient, self.dose)] if text]
        parts += [f"{name}={_short(value)}" for name, value in self.others.items()]
        return " ".join(parts)


def weight_words(alpha: float | None, weight: float | None, coefficient: float | None, dose: float | None) -> str:
    """`weight 12 (dose 0.3)` where the dose of a term is known, else `weight=0.3`, the factor on what was published.

    Nothing of a weight that alpha says, or that was published and whose dose is not known.
    """
    if dose is not None and coefficient is not None and alpha is None:
        return f"weight {coefficient:.3g} (dose {dose:.2g})"
    if dose is not None and coefficient is None:
        return f"dose {dose:.2g} each"
    return "" if weight is None or weight == 1 else f"weight={_short(weight)}"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def setting_of(objective: ObjectiveSpec, methods: Mapping[str, Any], doses: Mapping[str, Any] = MappingProxyType({})) -> Setting:
    """The setting of a resolved objective, with the methods' declarations and the doses of terms as run.json records them.

    temperature is there where all terms that have one have the same; alpha where one term stands beside 1 - alpha of
    the task loss; weight, the factor on the published coefficient, where that is not so and the task loss has its
    published one. others are hyper-parameters that are not as declared (of a first stage too), the coefficients of sums, and
    the doses of their terms where these differ.
    """
    alpha = weight = None
    others: dict[str, Any] = {}
    alone = len(objective.terms) == 1
    temperature = _shared_temperature(objective)
    for term in objective.terms:
        card = methods.get(term.method, {})
        for name, value in term.hyperparameters.items():
            if name == "temperature" and temperature is not None:
                continue
            if name == "temperature" or value != card.get("declared", {}).get(name, value):
                others[name if alone else f"{term.method}.{name}"] = value
        if alone and card:
            share = round(term.coefficient / card["scale"], 12)
            published = card["published"]
            if abs(objective.task + share - 1) < 1e-9:
                alpha = share
            elif objective.task == published["task"]:
                weight = round(term.coefficient / published["term"], 12)
        else:
            others[term.method] = term.coefficient
    if objective.first is not None:
        first = objective.first.term
        declared = methods.get(first.method, {}).get("declared", {})
        others |= {f"{first.method}.{name}": value for name, value in first.hyperparameters.items() if value != declared.get(name, value)}
    measured = {term.method: float(doses[term.method]["dose"]) for term in objective.terms if term.method in doses}
    shared = set(measured.values()) if len(measured) == len(objective.terms) else set()
    if len(shared) != 1:
        others |= {f"{name}.dose": dose for name, dose in measured.items()}
    coefficient = objective.terms[0].coefficient if alone else None
    return Setting(temperature, alpha, weight, others, coefficient, shared.pop() if len(shared) == 1 else None)


def _shared_temperature(objective: ObjectiveSpec) -> float | None:
    """The temperature of all terms that have one; None where none has, or where they differ."""
    found = [term.hyperparameters["temperature"] for term in objective.terms if "temperature" in term.hyperparameters]
    numbers = {float(value) for value in found if isinstance(value, int | float)}
    return numbers.pop() if len(numbers) == 1 and all(isinstance(value, int | float) for value in found) else None


def setting_text(run: Run, about: Mapping[str, Any]) -> str:
    """A run's setting in words. A first stage has no alpha: its loss stands alone, which nobody chose."""
    setting = setting_of(run.objective, about.get("methods", {}), about.get("doses", {}))
    return str(replace(setting, alpha=None) if run.kind == "pretrain" else setting)


@dataclass(frozen=True)
class BenchRecords:
    """All runs that count, in the order of their ids, and notes on those that had to be left out."""

    name: str
    records: tuple[Record, ...]
    notes: tuple[str, ...]
    folder: Path

    def only(self, ids: Container[str]) -> BenchRecords:
        """The bench with the runs of these ids alone."""
        return replace(self, records=tuple(record for record in self.records if record.id in ids))

    @property
    def portable_notes(self) -> tuple[str, ...]:
        """The notes with files named from the bench's folder on, for a table that may move with it."""
        return tuple(note.replace(f"{self.folder}/", "") for note in self.notes)


def read_bench(folder: Path) -> BenchRecords:
    """The records below a bench's folder. A damaged file becomes a note; it neither stops the table nor is touched.

    Of runs that differ only in the versions of their methods or of the engine the newest count; first stages never do.
    """
    store = Store(folder)
    if not (folder / "runs").is_dir():
        raise InputError(f"{folder}: not a bench (expected a folder with runs/)")
    records: list[Record] = []
    notes: list[str] = []
    stages: dict[str, Record] = {}
    for run_id in store.ids():
        place = store.run(run_id)
        try:
            record = read_record(place)
        except InputError as error:
            notes.extend(error.problems)
            continue
        if record.run.kind == "pretrain":
            stages[record.id] = record
            continue
        records.append(record)
        if record.state == "damaged":
            again = "trains this run again" if place.state() == "damaged" else "writes it again"
            notes.append(f"{place.path}/{record.error}; the next bench {again} and keeps the file")
    kept = _newest(records)
    if old := len(records) - len(kept):
        notes.append(f"left out: {number_of(old, 'run')} of older method versions")
    return BenchRecords(folder.resolve().name, tuple(kept), (*notes, *_mixed_versions(kept), *_mixed_teachers(kept, stages)), folder)


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


def _newest(records: Sequence[Record]) -> list[Record]:
    """The newest of runs that are equal but for versions: the highest numbers, or for hashes the ones finished last.

    Decided once for all seeds of a setting: some seeds of the old and some of the new version are a sample of neither.
    """
    keys = {record.id: _without_versions_and_seed(record.run) for record in records}
    newest: dict[str, tuple[Any, ...]] = {}
    for record in records:
        newest[keys[record.id]] = max(newest.get(keys[record.id], ()), (*_age(record), _versions(record.run)))
    return [record for record in records if newest[keys[record.id]][-1] == _versions(record.run)]


def _without_versions_and_seed(run: Run) -> str:
    content = run.model_dump(mode="json", exclude={"seed", "engine"})
    first = content["objective"].get("first")
    for term in [*content["objective"]["terms"], *([first["term"]] if first else [])]:
        term["version"] = ""
    return canonical_json(content)


def _versions(run: Run) -> tuple[Any, ...]:
    return (run.engine, *(term.version for term in run.objective.all_terms))


def _age(record: Record) -> tuple[Any, ...]:
    numbers = tuple(int(term.version) if term.version.isdecimal() else -1 for term in record.run.objective.all_terms)
    return (record.run.engine, numbers, str((record.result or {}).get("finished", "")))


def _mixed_versions(records: Iterable[Record]) -> list[str]:
    """A note for every method of which settings were trained with different versions."""
    found: dict[str, set[str]] = {}
    for record in records:
        for term in record.run.objective.all_terms:
            found.setdefault(term.method, set()).add(term.version)
    return [
        f"{method}: settings of versions {' and '.join(sorted(versions))} stand side by side"
        for method, versions in sorted(found.items())
        if len(versions) > 1
    ]


def _mixed_teachers(records: Iterable[Record], stages: Mapping[str, Record]) -> list[str]:
    """A note for every table whose runs learnt from one teacher by its id, but from different weights: it was trained again.

    stages: the first stages of runs, which a teacher has taught too. Runs of earlier versions do not say who taught them.
    """
    notes = []
    for place, there in by_place(records).items():
        taught: dict[frozenset[str], list[Record]] = {}
        for record in there:
            if trainings := _trainings(record, stages):
                taught.setdefault(trainings, []).append(record)
        count = len(frozenset().union(*taught))
        if count > 1:
            groups = sorted(taught.values(), key=lambda group: (-len(group), group[0].id))
            words = [" and ".join(_seeds_of(group)) for group in groups]
            teacher = (groups[0][0].result or {})["teacher"]["name"]
            notes.append(
                f"{place.pair}, {place.recipe}, {place.phase}: the runs were taught by {count} different trainings of teacher {teacher} "
                f"({'; '.join(words)}): what is compared is not the methods alone"
            )
    return notes


def _trainings(record: Record, stages: Mapping[str, Record]) -> frozenset[str]:
    """The digests of the teacher's weights from which a run that is done and its first stage learnt, as far as they are known."""
    if record.result is None or record.result.get("teacher") is None:
        return frozenset()
    first = stages.get(record.run.first.id) if record.run.first is not None else None
    teachers = [(part.result or {}).get("teacher") or {} for part in (record, first) if part is not None]
    return frozenset(teacher["weights_digest"] for teacher in teachers if teacher.get("weights_digest"))


def _seeds_of(group: Iterable[Record]) -> list[str]:
    """The seeds of each method, in words."""
    seeds: dict[str, set[int]] = {}
    for record in group:
        seeds.setdefault(record.method, set()).add(record.run.seed)
    return [f"{method} seed{'s' * (len(found) > 1)} {', '.join(map(str, sorted(found)))}" for method, found in sorted(seeds.items())]
