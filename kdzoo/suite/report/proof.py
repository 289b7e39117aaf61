"""Which rows of a bench prove themselves: trained again elsewhere with the same outcome (`kdzoo verify`, `kdzoo merge`). Free of torch.

A row is *measured* (its runs are here), *verified* (one of them was trained again and agreed, and none disagreed) or *reported* (a
paper's numbers, `reported.csv`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdzoo.runs.store import Store
from kdzoo.suite.report.merged_file import read_merged
from kdzoo.suite.report.records import Record
from kdzoo.suite.report.verified_file import Verdict, read_verifications, result_digest, verdicts_of_runs

MEASURED, VERIFIED, REPORTED = "measured", "verified", "reported"
COLUMNS = ("status", "replicas", "teacher_weights")
"""the columns of leaderboard.csv of a bench that was verified or merged"""


@dataclass(frozen=True)
class Proof:
    """What is known of a bench's runs from elsewhere, by id: what a verification said of them, and how often they were trained besides."""

    verdicts: Mapping[str, Verdict]
    replicas: Mapping[str, int]

    def columns(self, runs: Iterable[Record]) -> dict[str, Any]:
        """The cells of a row that these finished runs make."""
        done = list(runs)
        replicas = sum(self.replicas.get(record.id, 0) for record in done)
        verdicts = {self.verdicts.get(record.id) for record in done}
        proved = (replicas > 0 or "agrees" in verdicts) and "disagrees" not in verdicts
        teachers = {str(digest)[:12] for record in done if (digest := _teacher_of(record)) is not None}
        return {"status": VERIFIED if proved else MEASURED, "replicas": replicas, "teacher_weights": " ".join(sorted(teachers)) or None}

    @property
    def notes(self) -> list[str]:
        """What stands beside a table whose runs disagreed with a verification."""
        disagreeing = sorted(run_id for run_id, verdict in self.verdicts.items() if verdict == "disagrees")
        return [f"{run_id}: came to other numbers when it was trained again (verified.json)" for run_id in disagreeing]


def read_proof(folder: Path) -> Proof | None:
    """What is known of a bench's runs from elsewhere; None where it was neither verified nor merged.

    Raises InputError for a damaged file.
    """
    verifications, merged = read_verifications(folder), read_merged(folder)
    if not verifications and merged is None:
        return None
    store = Store(folder)
    digests = {run.id: result_digest(store.run(run.id)) for one in verifications for run in one.runs}
    replicas = {run_id: len(others) for run_id, others in merged.replicas.items()} if merged is not None else {}
    return Proof(verdicts_of_runs(verifications, digests), replicas)


def _teacher_of(record: Record) -> str | None:
    teacher = (record.result or {}).get("teacher") or {}
    digest = teacher.get("weights_digest")
    return None if digest is None else str(digest)
