"""Which setting of a method stands in the leaderboard: chosen on validation, never on the test set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kdzoo.suite.records import BenchRecords, Record, by_place

RULE = "highest mean validation top-1 of the last epoch over the seeds, then lowest validation NLL, then nearest the declared default"


@dataclass(frozen=True)
class Candidate:
    """All runs of one setting of a method, whatever came of them."""

    records: tuple[Record, ...]

    @property
    def done(self) -> tuple[Record, ...]:
        return tuple(record for record in self.records if record.result is not None)

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.records)

    @property
    def validated(self) -> bool:
        """Whether something was held out for every run that is done."""
        return all(record.result["last"].get("val") is not None for record in self.done if record.result)


def candidates(records: Iterable[Record]) -> list[Candidate]:
    """The settings of a method's runs, in a fixed order."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.setting_key, []).append(record)
    return [Candidate(tuple(sorted(groups[key], key=lambda r: (r.run.seed, r.id)))) for key in sorted(groups)]


def choose(options: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The chosen setting, as one of one; all of them where nothing was held out to choose on, or none is done.

    Settings with a failed or missing seed are candidates only where none is complete, and then those with the most
    seeds; so are, of complete ones, those with the most: the best of many short means is a lucky one.
    """
    if len(options) <= 1:
        return tuple(options)
    able = [option for option in options if option.complete] or [option for option in options if option.done]
    if not able or not all(option.validated for option in options):
        return tuple(options)
    most = max(len(option.done) for option in able)
    return (max((option for option in able if len(option.done) == most), key=_rank),)


def _rank(candidate: Candidate) -> tuple[float, float, float, str]:
    vals = [record.result["last"]["val"] for record in candidate.done if record.result]
    top1 = float(np.mean([val["top1"] for val in vals]))
    nll = float(np.mean([val["nll"] for val in vals]))
    # Means of equal counts may differ in the last bits: a tie is a tie.
    return (round(top1, 10), -round(nll, 10), -distance_from_default(candidate.records[0]), candidate.records[0].setting_key)


def distance_from_default(record: Record) -> float:
    """How far a setting is from the declared one: log ratios of hyper-parameters and coefficients, 0 for the declared."""
    total = 0.0
    for term in record.run.objective.terms:
        card = record.about.get("methods", {}).get(term.method, {})
        for name, value in term.hyperparameters.items():
            declared = card.get("declared", {}).get(name, value)
            if isinstance(value, int | float) and isinstance(declared, int | float) and value > 0 and declared > 0:
                total += abs(math.log(value / declared))
            elif value != declared:
                total += 1.0
        published = card.get("published")
        if published:
            total += abs(math.log(term.coefficient / published["term"])) + abs(record.run.objective.task - published["task"])
    return round(total, 10)


def chosen_runs(bench: BenchRecords) -> list[str]:
    """The id of one run of every method's chosen setting in the sweep, method by method and pair by pair, none twice."""
    found: dict[str, None] = {}
    for place, records in by_place(bench.records).items():
        for method in sorted({record.method for record in records}) if place.phase == "sweep" else ():
            options = candidates(record for record in records if record.method == method)
            found |= {option.records[0].id: None for option in choose(options) if option.done}
    return list(found)
