"""The controls and the teachers of a bench against reference points: whoever's rows these are, their ground has to be the known one.

Free of torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from kdzoo.suite.plan.config import CONTROLS
from kdzoo.suite.proof.agreement import Verdict
from kdzoo.suite.proof.machines import why_not_same_bits
from kdzoo.suite.proof.reference import Point, Spread, key_of
from kdzoo.suite.report.cells import method_words
from kdzoo.suite.report.records import Record
from kdzoo.suite.report.settings import setting_text
from kdzoo.tasks.task import Metric

BOUND = 3
"""how many standard errors a mean may lie from that of the reference"""


@dataclass(frozen=True)
class Control:
    """How a control, or a teacher, of one table stands to its reference point. what: which one, in words."""

    what: str
    verdict: Verdict
    text: str


def compare_controls(records: Iterable[Record], points: Mapping[str, Point]) -> list[Control]:
    """Every setting of the student alone and of plain KD against its reference point, and every teacher.

    A control that has no point is not comparable, unless another setting of the same method in the same table has one.
    """
    done = [record for record in records if record.result is not None]
    groups: dict[tuple[str, str], dict[str, list[Record]]] = {}
    for record in done:
        if record.method in CONTROLS:
            place = f"{record.table_key.pair} on {record.table_key.data}, {record.table_key.recipe}, {record.table_key.phase}"
            groups.setdefault((place, record.method), {}).setdefault(key_of(record.run), []).append(record)
    found: list[Control] = []
    for (place, method), settings in sorted(groups.items()):
        known = {key: group for key, group in settings.items() if key in points}
        found += [_test(group, points[key], place) for key, group in sorted(known.items())]
        if not known:
            found.append(Control(f"{method_words(method)}, {place}", "not comparable", "no reference point"))
    return [*found, *_teachers(done, points)]


def _test(records: list[Record], point: Point, place: str) -> Control:
    """One setting of a control against its point: seed by seed where the bits have to be the same, and by the mean."""
    first = records[0]
    setting = setting_text(first.run, first.about)
    what = f"{method_words(first.method)}{f' {setting}' if setting else ''}, {place}"
    for record in sorted(records, key=lambda one: one.run.seed):
        if fault := _other_bits(record, point):
            return Control(what, "disagrees", fault)
    parts = [(part, [value for one in records if (value := one.headline(part)) is not None]) for part in ("test", "val")]
    comparisons = [(part, values, spread) for part, values in parts if values and (spread := point.spread(part)) is not None]
    if not comparisons:
        return Control(what, "not comparable", "its reference point has fewer than five seeds")
    return Control(what, *_verdict(comparisons, first.task.headline))


def _other_bits(record: Record, point: Point) -> str | None:
    """What differs from the reference's run of the same seed, where both have to be the same to the bit; None where nothing does.

    They have to be where the kind of machine and the teacher's weights are the same.
    """
    assert record.result is not None
    teacher = (record.result["teacher"] or {}).get("weights_digest")
    if why_not_same_bits(record.result["environment"], point.environment or {}, {}) is not None or teacher != point.teacher:
        return None
    for part in ("test", "val"):
        known, own = point.values.get(part, {}).get(str(record.run.seed)), record.headline(part)
        if known is not None and own is not None and known != own:
            metric = record.task.headline
            return (
                f"seed {record.run.seed}: {part} {metric.heading} {metric.text(own)}, the reference has {metric.text(known)} by the same "
                "kind of machine and the same teacher"
            )
    return None


def _verdict(compared: Iterable[tuple[str, list[float], Spread]], metric: Metric) -> tuple[Verdict, str]:
    words, fits = [], True
    for part, values, spread in compared:
        mean = float(np.mean(values))
        error = spread.sd * math.sqrt(1 / len(values) + 1 / spread.count)
        fits = fits and abs(mean - spread.mean) <= BOUND * error
        words.append(
            f"{part} {metric.heading} {metric.text(mean)} of {len(values)}, reference {metric.text(spread.mean)} of {spread.count}, "
            f"bound {metric.spread_text(BOUND * error)}"
        )
    return ("agrees" if fits else "disagrees"), "; ".join(words)


def _teachers(done: Iterable[Record], points: Mapping[str, Point]) -> Iterator[Control]:
    """Every teacher that has a reference point, as its students' results record it."""
    seen: set[tuple[str, str]] = set()
    for record in done:
        teacher = (record.result or {}).get("teacher")
        run_id = record.run.teacher.start.removeprefix("run:") if record.run.teacher else ""
        point = points.get(run_id)
        if teacher is None or point is None or (run_id, str(teacher.get("weights_digest"))) in seen:
            continue
        seen.add((run_id, str(teacher.get("weights_digest"))))
        metric = record.task.headline
        values = [(part, teacher[part][metric.name], point.spread(part)) for part in ("test", "val") if teacher.get(part) is not None]
        comparisons = [(part, [value], spread) for part, value, spread in values if spread is not None]
        if comparisons:
            yield Control(f"teacher {run_id}", *_verdict(comparisons, metric))
