"""Benches merged into one: runs by id, replicas compared, nothing averaged. Free of torch."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kdzoo.errors import InputError, raise_if_any
from kdzoo.runs.atomic import ensure_writable, write_bytes
from kdzoo.runs.output_files import fault_of_new_folder
from kdzoo.runs.store import PAUSED, RunFolder, Store
from kdzoo.suite.plan.doses import NAME as DOSES
from kdzoo.suite.plan.doses import keep_doses, read_doses
from kdzoo.suite.plan.starts import keep_start, read_starts
from kdzoo.suite.proof.agreement import Agreement, same_bits, within_spread
from kdzoo.suite.proof.consistency import faults_of_folder
from kdzoo.suite.proof.machines import Bench, why_not_same_bits
from kdzoo.suite.proof.reference import Point, Spreads, key_of, points_of
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.merged_file import Merged, Replica, read_merged, write_merged
from kdzoo.suite.report.records import Record, read_record
from kdzoo.suite.report.reported import NAME as REPORTED
from kdzoo.suite.report.reported import read_reported
from kdzoo.suite.report.table_files import TABLES_LOCK, as_csv, write_tables
from kdzoo.suite.report.verified_file import read_verifications, write_verifications

FILES = ("run.json", "result.json", "metrics.jsonl", PAUSED, "error.txt", "predictions.npz")
"""what of a run's folder is taken over"""


@dataclass(frozen=True)
class Source:
    """A bench that is merged: its name, its folder with the commands that trained it, and its runs by id, pretrain stages among them."""

    name: str
    bench: Bench
    records: Mapping[str, Record]


@dataclass(frozen=True)
class Kept:
    """A run of the merged bench: the source that it is taken from, and its replicas elsewhere."""

    record: Record
    source: Source
    replicas: tuple[Replica, ...] = ()


def merge(folders: Sequence[Path], tables: Sequence[Path], out: Path, points: Mapping[str, Point]) -> tuple[Merged, list[str]]:
    """Merge benches into the folder `out`; what it came to, and notes for a reader.

    tables: CSV files of reported rows. Where a run is there several times, the first that was finished is kept and the others are counted:
    on one kind of machine their bits have to be equal, else their headlines within the known spread. Raises InputError, before
    anything is written, with all that stops the merge.
    """
    if fault := fault_of_new_folder(out):
        raise InputError(f"merge: {fault}")
    sources = _sources(folders)
    everything = [record for source in sources for record in source.records.values()]
    spreads = Spreads(points, points_of(_once(everything)))
    problems: list[str] = []
    sources_of = {run_id: _keep(run_id, sources, spreads, problems) for run_id in sorted({record.id for record in everything})}
    problems += _mixed_versions(everything)
    raise_if_any(problems)
    return _write(sources_of, sources, tables, out)


def _sources(folders: Sequence[Path]) -> list[Source]:
    """The benches with all of their runs; raises InputError with every run that cannot be what it says."""
    problems: list[str] = []
    sources = []
    names = _names(folders)
    for name, folder in zip(names, folders, strict=True):
        store = Store(folder)
        records = {}
        for run_id in store.ids():
            if faults := faults_of_folder(store.run(run_id)):
                problems += [f"{folder}: {run_id}: {fault}" for fault in faults]
            else:
                records[run_id] = read_record(store.run(run_id))
        sources.append(Source(name, Bench(folder, read_starts(folder)), records))
    raise_if_any(problems)
    return sources


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders by their names; by their paths where two have one name."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _once(records: Iterable[Record]) -> list[Record]:
    """Each run once, the one that was finished first."""
    first: dict[str, Record] = {}
    for record in sorted(records, key=_finished):
        if record.result is not None:
            first.setdefault(record.id, record)
    return list(first.values())


def _finished(record: Record) -> tuple[bool, str]:
    """By what runs of one id are ordered: finished ones first, by their time."""
    return record.result is None, str((record.result or {}).get("finished", ""))


def _keep(run_id: str, sources: Iterable[Source], spreads: Spreads, problems: list[str]) -> Kept:
    """Which of a run's trainings is kept, with the others as replicas; what stops the merge is added to `problems`."""
    there = sorted(((source.records[run_id], source) for source in sources if run_id in source.records), key=lambda one: _finished(one[0]))
    (record, source), *others = there
    replicas = []
    for other, beside in others:
        if record.result is None or other.result is None or _is_copy(source, beside, run_id):
            continue
        agreement = _compare(record, other, {**source.bench.options_of(run_id), **beside.bench.options_of(run_id)}, spreads)
        if agreement.verdict == "agrees" and agreement.by is not None:
            head = {part: other.headline(part) for part in ("test", "val")}
            replicas.append(Replica(folder=beside.name, by=agreement.by, headline=head, environment=dict(other.result["environment"])))
        else:
            problems.append(f"{run_id}, of {source.name} and of {beside.name}: {agreement.verdict}: {agreement.text}")
    return Kept(record, source, tuple(replicas))


def _is_copy(one: Source, other: Source, run_id: str) -> bool:
    """Whether two folders hold the very same result: that is one training, not two."""
    files = [Store(source.bench.folder).run(run_id).path / "result.json" for source in (one, other)]
    return files[0].read_bytes() == files[1].read_bytes()


def _compare(record: Record, other: Record, options: Mapping[str, Any], spreads: Spreads) -> Agreement:
    """Two trainings of one run. options: those of execution that may change the last bits."""
    assert record.result is not None
    assert other.result is not None
    why = why_not_same_bits(record.result["environment"], other.result["environment"], options)
    if why is None and _weights(record) != _weights(other):
        why = "taught by two trainings of the teacher"
    if why is None:
        return same_bits(record.result, other.result)
    return within_spread(record.result, other.result, spreads.of(key_of(record.run)), record.task.headline, why)


def _weights(record: Record) -> object:
    return ((record.result or {}).get("teacher") or {}).get("weights_digest")


def _mixed_versions(records: Iterable[Record]) -> list[str]:
    """Versions of one method, or of the engine, that would come to stand in one table."""
    found: dict[tuple[str, ...], set[str]] = {}
    for record in records:
        run = record.run
        table = (record.table_key.pair, record.table_key.data, record.table_key.recipe, record.table_key.phase)
        found.setdefault((*table, "engine"), set()).add(str(run.engine))
        for term in run.objective.all_terms:
            found.setdefault((*table, term.method), set()).add(term.version)
    return [
        f"{pair} on {data}, {recipe}, {phase}: versions {' and '.join(sorted(versions))} of {what} would share a table; merge them apart"
        for (pair, data, recipe, phase, what), versions in sorted(found.items())
        if len(versions) > 1
    ]


def _write(kept: Mapping[str, Kept], sources: Sequence[Source], tables: Sequence[Path], out: Path) -> tuple[Merged, list[str]]:
    """Write the merged bench; its tables last."""
    ensure_writable(out)
    for run_id, one in kept.items():
        _copy(Store(one.source.bench.folder).run(run_id), Store(out).run(run_id))
    for source in sources:
        _copy_teachers(source.bench.folder / "teachers", out / "teachers")
        for start in source.bench.starts:
            keep_start(out, start)
        if (source.bench.folder / DOSES).exists():
            keep_doses(out, read_doses(source.bench.folder))
    (out / ".bench.lock").unlink(missing_ok=True)
    (out / f".{DOSES}.lock").unlink(missing_ok=True)
    verifications = [verification for source in sources for verification in read_verifications(source.bench.folder)]
    if verifications:
        write_verifications(out, sorted(verifications, key=lambda one: one.date))
    before = [merged for source in sources if (merged := read_merged(source.bench.folder)) is not None]
    replicas: dict[str, list[Replica]] = {run_id: list(one.replicas) for run_id, one in kept.items() if one.replicas}
    for merged in before:
        for run_id, others in merged.replicas.items():
            replicas.setdefault(run_id, []).extend(others)
    merged = Merged(
        folders=[source.name for source in sources], runs={run_id: one.source.name for run_id, one in kept.items()}, replicas=replicas
    )
    write_merged(out, merged)
    _copy_reported([*(source.bench.folder / REPORTED for source in sources if (source.bench.folder / REPORTED).exists()), *tables], out)
    _, bench = write_tables(out)
    (out / TABLES_LOCK).unlink(missing_ok=True)
    return merged, list(bench.portable_notes)


def _copy(folder: RunFolder, to: RunFolder) -> None:
    to.path.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (folder.path / name).is_file():
            shutil.copyfile(folder.path / name, to.path / name)


def _copy_teachers(folder: Path, to: Path) -> None:
    """Take over what a bench keeps of its teachers, the first of each id."""
    for teacher in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not (to / teacher.name).exists():
            shutil.copytree(teacher, to / teacher.name, ignore=shutil.ignore_patterns(".*", "checkpoint"))


def _copy_reported(files: Iterable[Path], out: Path) -> None:
    """Join the reported rows of several files into one."""
    metric = read_bench(out).task.headline
    frames = [read_reported(file, metric) for file in files]
    if frames:
        write_bytes(out / REPORTED, as_csv(pd.concat(frames, ignore_index=True)))
