"""Which setting of a method stands in the leaderboard, and whether it is healthy: by validation, never by the test set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from kdzoo.suite.report.records import Record, by_table
from kdzoo.suite.report.rules import COLLAPSE_POINTS, COLLAPSE_SDS, is_collapsed
from kdzoo.tasks.task import Metric, Task

BELOW = "below the student alone on validation"


def rule_words(task: Task) -> str:
    """By what a setting is chosen, in words."""
    head, tie = task.headline, task.tie_break
    first = f"{head.superlative} mean validation {head.heading} of the last epoch over the seeds"
    return ", then ".join([first, *([f"{tie.superlative} validation {tie.heading}"] if tie else []), "nearest the declared default"])


def collapse_words(metric: Metric) -> str:
    """What makes a row a collapsed one, in words."""
    if metric.unit != "share":
        return "a seed failed"
    return (
        f"a seed failed, or the mean validation {metric.heading} of the last epoch lies more than {COLLAPSE_POINTS:g} points and more than "
        f"{COLLAPSE_SDS:g} sd of the student alone below the student alone"
    )


@dataclass(frozen=True)
class Candidate:
    """All runs of one setting of a method, whatever came of them."""

    records: tuple[Record, ...]

    @cached_property
    def done(self) -> tuple[Record, ...]:
        return tuple(record for record in self.records if record.result is not None)

    @property
    def is_paused(self) -> bool:
        """Whether a search within a budget has left it before the end of its runs: it then has no number that stands in a table."""
        return any(record.state == "paused" for record in self.records)

    @property
    def complete(self) -> bool:
        return len(self.done) == len(self.records)

    @property
    def validated(self) -> bool:
        """Whether something was held out for every run that is done."""
        return all(record.last_epoch_metrics("val") is not None for record in self.done)

    @property
    def task(self) -> Task:
        return self.records[0].task

    def val_values(self, metric: Metric) -> list[float]:
        """A metric on the validation images after the last epoch, of every seed that is done."""
        return [val[metric.name] for record in self.done if (val := record.last_epoch_metrics("val")) is not None]


def why_collapsed(candidate: Candidate, alone: Candidate | None) -> str | None:
    """What makes a setting a collapsed one, in words; None for a healthy one.

    A failed seed, or validation far below the student alone's (`rules.is_collapsed`). Without validation only failed
    seeds count, and so they do where the headline is no share. An interrupted run is missing and says nothing.
    """
    failed = sum(record.state == "failed" for record in candidate.records)
    if failed:
        return f"{failed} of {len(candidate.records)} seeds failed"
    metric = candidate.task.headline
    if metric.unit != "share" or alone is None or not (candidate.done and alone.done and candidate.validated and alone.validated):
        return None
    images = min(val["n"] for record in alone.done if (val := record.last_epoch_metrics("val")) is not None)
    own, base = np.array(candidate.val_values(metric)), np.array(alone.val_values(metric))
    if not is_collapsed(own, base, images):
        return None
    return f"{100 * (base.mean() - own.mean()):.1f} points {BELOW}"


def candidates(records: Iterable[Record]) -> list[Candidate]:
    """The settings of a method's runs, in a fixed order."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.setting_key, []).append(record)
    return [Candidate(tuple(sorted(groups[key], key=lambda r: (r.run.seed, r.id)))) for key in sorted(groups)]


def choose(options: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The chosen setting, as one of one; all of them where nothing was held out to choose on, or none is done.

    Settings with a failed or missing seed are candidates only where none is complete, and then those with the most
    seeds; so are, of complete ones, those with the most: the best of many short means is a lucky one. Paused ones never are.
    """
    options = [option for option in options if not option.is_paused]
    if len(options) <= 1:
        return tuple(options)
    able = [option for option in options if option.complete] or [option for option in options if option.done]
    if not able or not all(option.validated for option in options):
        return tuple(options)
    most = max(len(option.done) for option in able)
    return (max((option for option in able if len(option.done) == most), key=choice_order),)


def choice_order(candidate: Candidate) -> tuple[float | str, ...]:
    """What settings are chosen by, the largest first: the deciding metrics, nearness to the declared one, the setting's key."""
    return order_of(candidate.records[0], {metric.name: candidate.val_values(metric) for metric in candidate.task.deciding})


def order_of(record: Record, values: Mapping[str, Sequence[float]]) -> tuple[float | str, ...]:
    """The same for a setting of which this is one run. values: of each deciding metric on validation, one a seed."""
    # Means of equal counts may differ in the last bits: a tie is a tie.
    means = [metric.sign * round(float(np.mean(values[metric.name])), 10) for metric in record.task.deciding]
    return (*means, -distance_from_default(record), record.setting_key)


def distance_from_default(record: Record) -> float:
    """How far a setting is from the declared one: log ratios of hyper-parameters and coefficients, 0 for the declared."""
    total = 0.0
    for term in record.run.objective.terms:
        card = record.about.get("methods", {}).get(term.method, {})
        for name, value in term.hyperparameters.items():
            default = card.get("declared", {}).get(name, value)
            if isinstance(value, int | float) and isinstance(default, int | float) and value > 0 and default > 0:
                total += abs(math.log(value / default))
            elif value != default:
                total += 1.0
        published = card.get("published")
        if published:
            total += abs(math.log(term.coefficient / published["term"])) + abs(record.run.objective.task - published["task"])
    return round(total, 10)


def at_published_coefficients(record: Record) -> bool:
    """Whether a run's terms stand at the coefficients that its methods were published with, as far as those are known."""
    task = record.run.objective.task
    for term in record.run.objective.terms:
        published = record.about.get("methods", {}).get(term.method, {}).get("published")
        if published and not (math.isclose(term.coefficient, published["term"]) and math.isclose(task, published["task"])):
            return False
    return True


def chosen_runs(records: Iterable[Record]) -> list[str]:
    """The id of one run of every method's chosen setting in the sweep, method by method and pair by pair, none twice."""
    ids: dict[str, None] = {}
    for key, records_there in by_table(records).items():
        for method in sorted({record.method for record in records_there}) if key.phase == "sweep" else ():
            options = candidates(record for record in records_there if record.method == method)
            ids |= {option.records[0].id: None for option in choose(options) if option.done}
    return list(ids)
