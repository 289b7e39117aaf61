"""The runs of a bench as their folders tell them: run.json, result.json, error.txt. Nothing here needs torch or a plugin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdzoo.errors import InputError
from kdzoo.spec import ObjectiveSpec, Run, canonical_json
from kdzoo.store import RunFolder, State, Store


@dataclass(frozen=True)
class Record:
    """One run: what was planned, in what state it is, and what it came to."""

    run: Run
    about: Mapping[str, Any]
    state: State
    result: Mapping[str, Any] | None
    error: str | None

    @property
    def id(self) -> str:
        return self.run.id

    @property
    def method(self) -> str:
        return self.run.objective.label

    @property
    def setting_key(self) -> str:
        """Equal for runs that differ in nothing but their seed."""
        return canonical_json(self.run.objective.model_dump(mode="json"))

    @property
    def place(self) -> tuple[str, ...]:
        """What has to be equal for two runs to stand in one table."""
        run, about = self.run, self.about
        shared = canonical_json({"data": run.data.model_dump(mode="json"), "student": run.student.model_dump(mode="json")})
        return (str(about.get("pair")), run.data.name, str(about.get("recipe")), str(about.get("phase")), str(run.recipe.epochs), shared)


@dataclass(frozen=True)
class Setting:
    """A run's coefficients in the words of the tables; None where a word does not apply."""

    temperature: float | None
    alpha: float | None
    weight: float | None
    others: Mapping[str, Any]

    def __str__(self) -> str:
        words: dict[str, Any] = {"T": self.temperature, "alpha": self.alpha, "weight": None if self.weight == 1 else self.weight}
        return " ".join(f"{name}={_short(value)}" for name, value in {**words, **self.others}.items() if value is not None)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def setting_of(objective: ObjectiveSpec, methods: Mapping[str, Any]) -> Setting:
    """The setting of a resolved objective, with the methods' declarations as run.json records them.

    alpha is there where one term stands beside 1 - alpha of the task loss; weight is the factor on the published
    coefficient where the task loss has its published one; others are hyper-parameters that are not as declared.
    """
    temperature = alpha = weight = None
    others: dict[str, Any] = {}
    for term in objective.terms:
        card = methods.get(term.method, {})
        alone = len(objective.terms) == 1
        for name, value in term.hyperparameters.items():
            if name == "temperature":
                temperature = float(value)  # type: ignore[arg-type]
            elif value != card.get("declared", {}).get(name, value):
                others[name if alone else f"{term.method}.{name}"] = value
        if alone and card:
            share = round(term.coefficient / card["scale"], 12)
            published = card["published"]
            if abs(objective.task + share - 1) < 1e-9:
                alpha = share
            elif objective.task == published["task"]:
                weight = round(term.coefficient / published["term"], 12)
        elif not alone or not card:
            others[term.method] = term.coefficient
    return Setting(temperature, alpha, weight, others)


def setting_text(run: Run, about: Mapping[str, Any]) -> str:
    return str(setting_of(run.objective, about.get("methods", {})))


@dataclass(frozen=True)
class BenchRecords:
    """All runs that count, in the order of their ids, and what had to be left out, in words."""

    name: str
    records: tuple[Record, ...]
    notes: tuple[str, ...]


def read_bench(folder: Path) -> BenchRecords:
    """The records below a bench's folder. A damaged file becomes a note; it neither stops the table nor is touched.

    Of runs that differ only in the versions of their methods or of the engine the newest counts.
    """
    store = Store(folder)
    if not (folder / "runs").is_dir():
        raise InputError(f"{folder}: no bench there (expected a folder with runs/)")
    records: list[Record] = []
    notes: list[str] = []
    for run_id in store.ids():
        try:
            records.append(read_record(store.run(run_id)))
        except InputError as error:
            notes.extend(error.problems)
    for record in records:
        if record.state == "damaged":
            notes.append(f"{store.run(record.id).path / 'result.json'}: damaged; the next bench trains this run again and keeps the file")
    kept = _newest(records)
    if len(kept) < len(records):
        notes.append(f"{len(records) - len(kept)} runs of older method versions are left out")
    return BenchRecords(folder.resolve().name, tuple(kept), tuple(notes))


def read_record(folder: RunFolder) -> Record:
    """One run's record; raises InputError when its run.json cannot be read."""
    run, about = folder.read_plan()
    state = folder.state()
    result = folder.result() if state == "done" else None
    if result is not None and not {"last", "cost", "student"} <= result.keys():
        state, result = "damaged", None
    error = None
    if state == "failed":
        lines = (folder.path / "error.txt").read_text().strip().splitlines()
        error = lines[-1] if lines else "no reason was kept"
    return Record(run, about, state, result, error)


def _newest(records: list[Record]) -> list[Record]:
    """The newest of runs that are equal but for versions: the highest number, or for hashes the one finished last."""
    best: dict[str, Record] = {}
    for record in records:
        key = _without_versions(record.run)
        if key not in best or _age(record) > _age(best[key]):
            best[key] = record
    chosen = {record.id for record in best.values()}
    return [record for record in records if record.id in chosen]


def _without_versions(run: Run) -> str:
    content = run.model_dump(mode="json")
    content["engine"] = 0
    for term in content["objective"]["terms"]:
        term["version"] = ""
    return canonical_json(content)


def _age(record: Record) -> tuple[Any, ...]:
    numbers = tuple(int(term.version) if term.version.isdigit() else -1 for term in record.run.objective.terms)
    return (record.run.engine, numbers, str((record.result or {}).get("finished", "")))
