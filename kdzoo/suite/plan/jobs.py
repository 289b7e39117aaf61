"""Jobs, as they are handed to workers, and their outcome. Free of torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from kdzoo.runs.fence import Fence
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.store import Store


@dataclass(frozen=True)
class Job:
    """A cohort to train, a teacher to train (where `ids` names its run) and to check, or ratios of gradients to measure.

    folder: the bench whose runs `ids` are, or the store of teachers. checked_run: for a teacher, the folder and id of a
    student's run on whose data it is checked. teacher_threads: with how many threads it is trained; it then runs with as many
    as its students have, so that its outputs are those that they see. waits_for: the name of the job that must be done first.
    units: training steps.
    probes: what is measured, or the first student whose data a teacher is checked on, where none of these has a folder yet:
    each its run and what is recorded beside it, as run.json has them.
    claim: where several machines share the jobs, the file and the mark of the fence under which its runs are written.
    """

    name: str
    kind: Literal["teacher", "students", "doses"]
    folder: str
    ids: tuple[str, ...]
    options: WorkerOptions
    units: int = 0
    waits_for: str | None = None
    checked_run: tuple[str, str] | None = None
    teacher_threads: int = 1
    probes: tuple[dict[str, Any], ...] = ()
    claim: tuple[str, str] | None = None

    @property
    def store(self) -> Store:
        """The store of its runs, which is written under its claim."""
        return Store(Path(self.folder), Fence(Path(self.claim[0]), self.claim[1]) if self.claim else None)

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "options": self.options.model_dump(mode="json")})

    @staticmethod
    def from_json(line: str) -> Job:
        raw = json.loads(line)
        options = WorkerOptions.model_validate(raw.pop("options"))
        checked_run = raw.pop("checked_run")
        claim = raw.pop("claim")
        tuples = {
            "ids": tuple(raw["ids"]),
            "probes": tuple(raw["probes"]),
            "checked_run": tuple(checked_run) if checked_run else None,
            "claim": tuple(claim) if claim else None,
        }
        return Job(**{**raw, **tuples, "options": options})

    def with_absolute_folders(self) -> Job:
        """The same job for a process that works in another folder."""
        checked = (str(Path(self.checked_run[0]).absolute()), self.checked_run[1]) if self.checked_run else None
        return replace(self, folder=str(Path(self.folder).absolute()), checked_run=checked)

    def subset(self, ids: tuple[str, ...]) -> Job:
        """The same job for some of its runs."""
        return replace(self, ids=ids, units=self.units * len(ids) // max(len(self.ids), 1))


@dataclass
class Outcome:
    """How a launch ended: which runs are done, which failed and why, and which are paused within their budget."""

    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)

    def joined(self, later: Outcome) -> Outcome:
        """Both, where a later launch may have trained the same runs on."""
        paused = (self.paused - later.done - later.failed.keys()) | later.paused
        failed = {run_id: text for run_id, text in self.failed.items() if run_id not in later.done | later.paused}
        return Outcome(self.done | later.done, {**failed, **later.failed}, paused)
