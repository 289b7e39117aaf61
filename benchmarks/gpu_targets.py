"""What a GPU is to reach, declared once, and what was found of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gpu_filled import FIRST, LARGEST_SWEEP, SECOND

Record = dict[str, Any]
BATCH, BESIDE = 128, 64
"""the batch size that targets are of, and the published one, which stands beside it without a target: it takes twice the steps"""
NOT_MEASURED = "not measured"


def in_words(pair: str) -> str:
    """TEACHER/STUDENT as "STUDENT under TEACHER"."""
    teacher, _, student = pair.partition("/")
    return f"{student} under {teacher}"


@dataclass(frozen=True)
class Target:
    """240 epochs of a student under a teacher in at most so many seconds: of a run alone, or a run's share of a sweep of 27."""

    pair: str
    alone: bool
    seconds: float

    @property
    def name(self) -> str:
        return f"240 epochs of {in_words(self.pair)}, {'alone' if self.alone else f'a run of a sweep of {LARGEST_SWEEP}'}"

    def admits(self, runs: int) -> bool:
        """Whether so many runs together are a way to reach it."""
        return runs == 1 if self.alone else 1 < runs <= LARGEST_SWEEP


TARGETS = (Target(FIRST, False, 25.0), Target(FIRST, True, 75.0), Target(SECOND, False, 45.0))


@dataclass(frozen=True)
class AccuracyTarget:
    """The published accuracy of plain KD within so many epochs; how many seconds that takes is what is told."""

    pair: str
    epochs: int

    @property
    def name(self) -> str:
        return f"the published accuracy of plain KD of {in_words(self.pair)} within {self.epochs} epochs"


ACCURACY = AccuracyTarget(FIRST, 60)


def found_targets(content: Mapping[str, Any]) -> list[Record]:
    """Each target at both batch sizes, and the accuracy: what is asked, what was found by which way, and the verdict."""
    rows = [time_row(target, batch, content.get("epochs", [])) for target in TARGETS for batch in (BATCH, BESIDE)]
    return [*rows, accuracy_row(ACCURACY, content.get("accuracy", []))]


def time_row(target: Target, batch: int, cells: list[Record]) -> Record:
    """A target beside the fastest way that was measured of its pair at a batch size."""
    asked = target.seconds if batch == BATCH else None
    about = {"target": target.name, "batch": batch, "asked": asked, "found": None, "side": None, "verdict": NOT_MEASURED}
    found = min(_seconds(target, batch, cells), default=None)
    if found is None:
        return about
    seconds, side = found
    missed = None if asked is None or seconds <= asked else seconds - asked
    verdict = "no target" if asked is None else "reached" if missed is None else f"missed by {missed:.1f} s"
    return {**about, "found": seconds, "side": side, "verdict": verdict}


def _seconds(target: Target, batch: int, cells: list[Record]) -> Iterator[tuple[float, str]]:
    for cell in cells:
        if (cell["pair"], cell["batch"]) == (target.pair, batch):
            for name, way in cell["ways"].items():
                if target.admits(way["runs"]):
                    yield way["seconds_for_240_epochs"], f"{name} in {cell['precision']}"


def accuracy_row(target: AccuracyTarget, cells: list[Record]) -> Record:
    """The accuracy beside the published one; found is the seconds of the run, which is judged by its last epoch."""
    about = {"target": target.name, "batch": BATCH, "asked": None, "found": None, "side": None, "verdict": NOT_MEASURED}
    for cell in cells:
        time, asked = cell["time_to_accuracy"], cell["time_to_accuracy"]["asked"]
        if (cell["pair"], cell["epochs"]) != (target.pair, target.epochs) or time["test"] is None:
            return {**about, "asked": asked}
        test = time["test"]
        short = asked - test["top1"]
        verdict = "reached" if test["reached"] else f"missed by {short:.2f} points"
        side = f"{test['top1']:.2f} % on the test images after epoch {test['epoch']}"
        return {**about, "asked": asked, "found": test["seconds"], "side": side, "verdict": verdict}
    return about
