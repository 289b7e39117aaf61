"""A bench verified, from start to end: its files, its controls, and a sample of its runs trained again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from kdzoo.contract.plugins import load_plugins
from kdzoo.errors import InputError
from kdzoo.files import cache_folder
from kdzoo.runs.environment import environment
from kdzoo.runs.store import Store
from kdzoo.suite.plan.starts import read_starts
from kdzoo.suite.proof.agreement import Agreement, same_bits, within_spread
from kdzoo.suite.proof.consistency import copies, faults_of_folder
from kdzoo.suite.proof.controls import compare_controls
from kdzoo.suite.proof.machines import Bench, why_not_same_bits
from kdzoo.suite.proof.reference import Point, Spreads, key_of, points_of, reference_points
from kdzoo.suite.proof.retrain import Again, Elsewhere, Train, retrain
from kdzoo.suite.proof.sample import draw
from kdzoo.suite.report.bench import BenchRecords, read_bench
from kdzoo.suite.report.records import Record
from kdzoo.suite.report.verified_file import (
    Verification,
    VerifiedControl,
    VerifiedRun,
    keep_verification,
    result_digest,
)
from kdzoo.suite.run.prepare import device_of
from kdzoo.version import VERSION


@dataclass(frozen=True)
class VerifyRequest:
    """What is to be verified. sample: how many runs are trained again; teachers: their teachers too, whatever is at hand.

    runs: ids of runs that are trained again in any case. points: the reference points.
    """

    folder: Path
    sample: int
    seed: int
    teachers: bool = False
    runs: Sequence[str] = ()
    plugins: Sequence[str] = ()
    where: Elsewhere = field(default_factory=Elsewhere)
    points: Mapping[str, Point] = field(default_factory=reference_points)


def scratch_folder(request: VerifyRequest) -> Path:
    """Where runs are trained again: the same for the same bench and seed, so that an interrupted verification goes on."""
    place = request.folder.resolve()
    return cache_folder() / "verify" / f"{place.name}-{hashlib.sha256(str(place).encode()).hexdigest()[:8]}-{request.seed}"


def verify(request: VerifyRequest, train: Train) -> Verification:
    """Verify a bench and write its verified.json.

    Raises InputError for what is no bench, and for runs by id that it does not have.
    """
    load_plugins(request.plugins)
    bench = read_bench(request.folder)
    store = Store(request.folder)
    faults = {run_id: found for run_id in store.ids() if (found := faults_of_folder(store.run(run_id)))}
    for run_id, text in copies(bench.records).items():
        faults.setdefault(run_id, []).append(text)
    drawn = _drawn(request, bench)
    scratch, trained_as = scratch_folder(request), Bench(request.folder, read_starts(request.folder))
    again = retrain(drawn, trained_as, scratch, request.where, train, teachers=request.teachers)
    spreads = Spreads(request.points, points_of(bench.records))
    runs = [_verified(record, again[record.id], trained_as, spreads) for record in drawn]
    controls = [
        VerifiedControl(what=one.what, verdict=one.verdict, text=one.text) for one in compare_controls(bench.records, request.points)
    ]
    verification = Verification(
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        kdzoo=VERSION,
        seed=request.seed,
        sample=len(drawn),
        of=sum(record.state == "done" for record in bench.records),
        environment=_environment(request, drawn),
        runs=runs,
        controls=controls,
        faults=faults,
    )
    keep_verification(request.folder, verification)
    shutil.rmtree(scratch, ignore_errors=True)
    return verification


def _drawn(request: VerifyRequest, bench: BenchRecords) -> list[Record]:
    """The runs that are trained again: those asked for, and those drawn."""
    known = {record.id: record for record in bench.records if record.state == "done"}
    if unknown := [run_id for run_id in request.runs if run_id not in known]:
        raise InputError(*(f"verify: {run_id} is no finished run of {bench.name}" for run_id in unknown))
    drawn = draw(bench.records, request.sample, request.seed)
    return list({record.id: record for record in (*(known[run_id] for run_id in request.runs), *drawn)}.values())


def _verified(record: Record, again: Again, bench: Bench, spreads: Spreads) -> VerifiedRun:
    agreement = _agreement(record, again, bench, spreads)
    digest = result_digest(Store(bench.folder).run(record.id))
    return VerifiedRun(id=record.id, result=digest, verdict=agreement.verdict, by=agreement.by, text=agreement.text)


def _agreement(record: Record, again: Again, bench: Bench, spreads: Spreads) -> Agreement:
    """How a run that was trained again stands to its record."""
    assert record.result is not None
    if again.result is None:
        return Agreement("disagrees" if again.diverged else "not comparable", None, again.error)
    why = again.teacher or why_not_same_bits(record.result["environment"], again.result["environment"], bench.options_of(record.id))
    if why is None:
        return same_bits(record.result, again.result)
    return within_spread(record.result, again.result, spreads.of(key_of(record.run)), record.task.headline, why)


def _environment(request: VerifyRequest, drawn: Iterable[Record]) -> dict[str, object]:
    threads = max((int((record.result or {})["environment"]["threads"]) for record in drawn), default=1)
    return environment(torch.device(device_of(str(request.where.execution.get("device", "auto")))), threads)
