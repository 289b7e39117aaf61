"""Trains runs of a bench again, beside it, by the same code as a bench: plan, jobs, launcher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kdzoo.contract.build_objective import terms_of
from kdzoo.errors import InputError, collect_problems
from kdzoo.models.request import ensemble_ids
from kdzoo.runs.environment import environment
from kdzoo.runs.seals import DamagedFile, read_tensors, tensors_digest
from kdzoo.runs.spec import ENGINE, Run
from kdzoo.runs.store import RunFolder, Store, teacher_store
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.planned import Plan, PlannedRun
from kdzoo.suite.plan.sweep import plan as make_plan
from kdzoo.suite.proof.machines import Bench, why_not_same_bits
from kdzoo.suite.report.records import Record
from kdzoo.suite.run.failures import others_than_divergence
from kdzoo.suite.run.prepare import Prepared, device_of, schedule, states_of

Train = Callable[[Prepared], Outcome]
"""trains what is missing of a plan and returns how every run came out"""


@dataclass(frozen=True)
class Elsewhere:
    """Where things lie on this machine, and how runs are executed on it. data: the images, where run.json names another place."""

    execution: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    data_root: str | None = None

    def config(self, threads: int, options: Mapping[str, Any], keep: Sequence[str]) -> BenchConfig:
        """How runs with so many threads are executed; a teacher at chance is no reason here, since it has taught before."""
        own = {"threads": threads, "keep": list(keep), "name": "verify", "allow_chance_teacher": True}
        return bench_config({**self.execution, **options, **own}, None)

    def paths(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """The places that a run was planned from, as they are here."""
        paths = dict(about.get("paths", {}))
        if self.data is not None:
            paths["data"] = self.data
        root = paths.pop("data_root", None)
        if self.data_root is not None or (root is not None and Path(root).is_dir()):
            paths["data_root"] = self.data_root or root
        return paths


@dataclass(frozen=True)
class Again:
    """A run trained again: its new result, or why there is none. teacher: what is to be said of its teacher's weights."""

    result: Mapping[str, Any] | None
    error: str = ""
    diverged: bool = False
    teacher: str = ""


@dataclass(frozen=True)
class TeacherHere:
    """The weights by which a run is taught again. exact: whether they are those of the record; fault: why not, where that is a fault."""

    files: str | list[str] | None
    exact: bool
    text: str = ""
    fault: str | None = None


def why_not_trainable(record: Record) -> str | None:
    """Why this kdzoo cannot train a run again, by its specification alone; None where it can."""
    if record.run.engine != ENGINE:
        return f"it is of engine {record.run.engine}, this kdzoo trains by engine {ENGINE}"
    problems: list[str] = []
    for run in filter(None, (record.run.pretrain_run, record.run)):
        with collect_problems(problems):
            terms_of(run.objective)
    return problems[0] if problems else None


def retrain(records: Iterable[Record], bench: Bench, scratch: Path, where: Elsewhere, train: Train, *, teachers: bool) -> dict[str, Again]:
    """Train runs again in the folder `scratch`, with as many threads as they had; by id.

    teachers: train their teachers again too, although weights of the recorded digest are at hand. What is done in `scratch`
    already is not trained again.
    """
    found: dict[str, Again] = {}
    groups: dict[tuple[int, str], list[tuple[Record, TeacherHere]]] = {}
    known: dict[tuple[Any, ...], TeacherHere] = {}
    for record in records:
        if (reason := why_not_trainable(record)) is not None:
            found[record.id] = Again(None, reason)
            continue
        try:
            key = (str(record.run.teacher), ((record.result or {}).get("teacher") or {}).get("weights_digest"), _threads(record))
            if key not in known:
                known[key] = _teacher_of(record, bench, scratch, where, train, again=teachers)
        except InputError as error:
            found[record.id] = Again(None, error.problems[0])
            continue
        options = bench.options_of(record.id)
        groups.setdefault((_threads(record), str(sorted(options.items()))), []).append((record, known[key]))
    for (threads, _), members in groups.items():
        options = bench.options_of(members[0][0].id)
        planned = [_planned(record, teacher, where) for record, teacher in members]
        try:
            outcome = _train(planned, scratch, where.config(threads, options, ()), train)
        except InputError as error:  # data that are not here, or not those that were planned
            found |= {record.id: Again(None, error.problems[0]) for record, _ in members}
            continue
        for record, teacher in members:
            found[record.id] = _again(record, teacher, Store(scratch).run(record.id), outcome)
    return found


def _threads(record: Record) -> int:
    return int((record.result or {})["environment"]["threads"])


def _planned(record: Record, teacher: TeacherHere, where: Elsewhere) -> PlannedRun:
    paths = where.paths(record.about)
    if teacher.files is not None:
        paths["teacher"] = teacher.files
    return PlannedRun(record.run, {**record.about, "paths": paths, "teacher_id": None})


def _train(planned: Sequence[PlannedRun], folder: Path, config: BenchConfig, train: Train) -> Outcome:
    """Train planned runs as a bench of their own; raises InputError where their data or their teacher cannot be had."""
    plan = Plan(folder.name, folder, tuple(planned), {}, len(planned))
    return train(schedule(config, plan, device_of(config.device), None, states_of(plan)))


def _again(record: Record, teacher: TeacherHere, folder: RunFolder, outcome: Outcome) -> Again:
    if teacher.fault is not None:
        return Again(None, teacher.fault, diverged=True)
    if folder.state() == "done":
        return Again(folder.result(), teacher="" if teacher.exact else teacher.text)
    error = outcome.failed.get(record.id, "it was not trained")
    return Again(None, f"its training failed here: {error}", diverged=not others_than_divergence({record.id: error}))


def _teacher_of(record: Record, bench: Bench, scratch: Path, where: Elsewhere, train: Train, *, again: bool) -> TeacherHere:
    """The weights by which a run is taught again: those of the recorded digest where they are at hand, else trained again.

    Raises InputError where its teacher cannot be had.
    """
    spec = record.run.teacher
    kind, _, name = ("", "", "") if spec is None else spec.start.partition(":")
    if kind != "run":
        return TeacherHere(None, exact=True)
    ids = ensemble_ids(name)
    if len(ids) > 1:
        files = [_kept(run_id, bench) or _trained(run_id, record, bench, scratch, where, train, 1) for run_id in ids]
        return TeacherHere([str(file) for file in files], exact=True)
    digest = (record.result or {})["teacher"].get("weights_digest")
    if not again:
        for file in _at_hand(name, bench):
            if digest is not None and digest_of(file) == digest:
                return TeacherHere(str(file), exact=True)
    return _trained_teacher(name, digest, record, bench, scratch, where, train)


def _trained_teacher(
    run_id: str, digest: str | None, record: Record, bench: Bench, scratch: Path, where: Elsewhere, train: Train
) -> TeacherHere:
    """The teacher of a run trained again, and whether that came to the recorded weights."""
    folder = _record_of(run_id, bench)
    result = folder.result() if folder is not None and folder.state() == "done" else None
    threads = _threads(record)
    here = environment(torch.device("cpu"), threads)
    same_kind = why_not_same_bits((record.result or {})["environment"], here, bench.options_of(record.id)) is None
    counts = [int(result["environment"]["threads"])] if result else [threads, 2 * threads, 4 * threads] if same_kind else [threads]
    for count in counts:
        file = _trained(run_id, record, bench, scratch, where, train, count)
        if digest is not None and digest_of(file) == digest:
            return TeacherHere(str(file), exact=True)
    sentence = f"its teacher {run_id}, trained again, came to other weights"
    if not same_kind or digest is None:
        return TeacherHere(str(file), exact=False, text=sentence)
    if result is not None:
        return TeacherHere(
            str(file), exact=False, fault=f"{sentence} than {digest[:12]}..., by which it was taught; here the same were expected"
        )
    numbers = ", ".join(map(str, counts))
    return TeacherHere(str(file), exact=False, text=f"{sentence} (with {numbers} threads; how many it had is not recorded)")


def digest_of(file: Path) -> str | None:
    """The digest of a file's weights, as results name a teacher by; None where it holds none."""
    try:
        return tensors_digest(read_tensors(file)[0])
    except (DamagedFile, FileNotFoundError):
        return None


def _at_hand(run_id: str, bench: Bench) -> list[Path]:
    """Where weights of a teacher may lie: beside the bench's runs, and among those that are kept here."""
    places = [bench.folder / "teachers" / run_id, teacher_store().run(run_id).path]
    return [file for place in places if (file := RunFolder(place).student).is_file()]


def _kept(run_id: str, bench: Bench) -> Path | None:
    return next(iter(_at_hand(run_id, bench)), None)


def _record_of(run_id: str, bench: Bench) -> RunFolder | None:
    """The folder that records how a teacher was trained: beside the bench's runs, else among those that are kept here."""
    for folder in (RunFolder(bench.folder / "teachers" / run_id), teacher_store().run(run_id)):
        if (folder.path / "run.json").is_file():
            return folder
    return None


def _trained(run_id: str, record: Record, bench: Bench, scratch: Path, where: Elsewhere, train: Train, threads: int) -> Path:
    """The weights of a teacher, trained again with so many threads; raises InputError where its run is not known or fails."""
    run, about = _run_of(run_id, record, bench)
    planned = PlannedRun(run, {**about, "paths": where.paths(about)})
    folder = scratch / "teachers" / f"{threads}-threads"
    outcome = _train([planned], folder, where.config(threads, bench.options_of(record.id), ("student",)), train)
    if outcome.failed:
        raise InputError(f"its teacher {run_id}: {next(iter(outcome.failed.values()))}")
    return Store(folder).run(run_id).student


def _run_of(run_id: str, record: Record, bench: Bench) -> tuple[Run, dict[str, Any]]:
    """The run of a teacher: as its own folder records it, else as the bench's command plans it.

    Raises InputError where neither tells.
    """
    if (folder := _record_of(run_id, bench)) is not None:
        return folder.read_plan()
    for start in bench.starts:
        if record.id not in start.runs:
            continue
        known = {key: value for key, value in start.config.items() if key in BenchConfig.model_fields}
        for planned in make_plan(BenchConfig.model_validate(known)).teachers.values():
            whole = planned.run.model_copy(update={"data": planned.run.data.model_copy(update={"val_fraction": 0.0})})
            for run in (planned.run, whole):  # of the sweep, and of its refit
                if run.id == run_id:
                    return run, dict(planned.about)
    raise InputError(f"its teacher {run_id} is not known here: neither a run.json of it nor the command that planned it is there")
