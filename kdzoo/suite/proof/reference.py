"""Reference points: what runs are known to come to, seed by seed, in `configs/reference`. Free of torch.

A point is a setting of a method on one pair, data set and recipe: all that a run is but for its seed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kdzoo.errors import InputError
from kdzoo.files import CONFIGS, read_file
from kdzoo.runs.spec import Run
from kdzoo.suite.proof.machines import DECIDES_BITS
from kdzoo.suite.report.records import Record
from kdzoo.suite.report.settings import setting_text

FOLDER = CONFIGS / "reference"
PARTS: tuple[Literal["test", "val"], ...] = ("test", "val")
FEWEST_SEEDS = 5
"""a spread of fewer seeds says too little"""


@dataclass(frozen=True)
class Point:
    """What the seeds of one setting came to: its task's headline after the last epoch, on each part of the data.

    images: how many there are, by part. teacher: the digest of the teacher's weights. environment: what decides the bits.
    """

    key: str
    pair: str
    data: str
    recipe: str
    phase: str
    method: str
    setting: str
    metric: str
    images: Mapping[str, int]
    values: Mapping[str, Mapping[str, float]]
    teacher: str | None = None
    environment: Mapping[str, Any] | None = None

    def spread(self, part: str) -> Spread | None:
        """The spread over its seeds on a part of the data; None where that has too few."""
        return spread_of(list(self.values.get(part, {}).values()), self.images.get(part, 0), "reference")


@dataclass(frozen=True)
class Spread:
    """The mean and the sample standard deviation of `count` seeds; source: in words, whose seeds these are."""

    mean: float
    sd: float
    count: int
    source: str


def spread_of(values: list[float], images: int, source: str) -> Spread | None:
    """The spread of some seeds; equal values differ by less than one image makes. None for fewer than FEWEST_SEEDS."""
    if len(values) < FEWEST_SEEDS:
        return None
    least = 1 / (math.sqrt(12) * images) if images else 0.0
    return Spread(float(np.mean(values)), max(float(np.std(values, ddof=1)), least), len(values), source)


@dataclass(frozen=True)
class Spreads:
    """Where the spread of a setting is looked up. own: the points that the bench's own runs make."""

    reference: Mapping[str, Point]
    own: Mapping[str, Point]

    def of(self, key: str) -> dict[str, Spread | None]:
        """The spread of a setting by part of the data: that of the reference, else that of the bench's own seeds."""
        found: dict[str, Spread | None] = {}
        for part in PARTS:
            spread = self.reference[key].spread(part) if key in self.reference else None
            if spread is None and key in self.own and (beside := self.own[key].spread(part)) is not None:
                spread = replace(beside, source="its bench's own")
            found[part] = spread
        return found


def key_of(run: Run) -> str:
    """Equal for runs that differ in nothing but their seed."""
    return run.model_copy(update={"seed": 0}).id


def points_of(records: Iterable[Record]) -> dict[str, Point]:
    """The points that finished runs make, by key."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.result is not None:
            groups.setdefault(key_of(record.run), []).append(record)
    return {key: _point(key, sorted(group, key=lambda one: one.run.seed)) for key, group in sorted(groups.items())}


def _point(key: str, records: list[Record]) -> Point:
    first = records[0]
    assert first.result is not None
    parts = [part for part in PARTS if first.result["last"].get(part) is not None]
    return Point(
        key=key,
        pair=first.table_key.pair,
        data=first.table_key.data,
        recipe=first.table_key.recipe,
        phase=first.table_key.phase,
        method=first.method,
        setting=setting_text(first.run, first.about),
        metric=first.task.headline.name,
        images={part: int(first.result["last"][part]["n"]) for part in parts},
        values={part: {str(one.run.seed): value for one in records if (value := one.headline(part)) is not None} for part in parts},
        teacher=_shared([(one.result or {}).get("teacher") for one in records], "weights_digest"),
        environment={name: _shared([(one.result or {})["environment"] for one in records], name) for name in ENVIRONMENT},
    )


ENVIRONMENT = (*DECIDES_BITS, "compile")
"""what decides the bits of a run"""


def _shared(parts: Iterable[Mapping[str, Any] | None], name: str) -> Any:
    """The value that all have; None where they do not."""
    values = [(part or {}).get(name) for part in parts]
    return values[0] if all(value == values[0] for value in values) else None


def write_text(points: Iterable[Point], command: str) -> str:
    """The text of a file of reference points. command: what trained them."""
    content = {"command": command, "points": [asdict(point) for point in points]}
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_points(file: Path) -> dict[str, Point]:
    """The points of a file, by key; raises InputError for a damaged one."""
    try:
        return {entry["key"]: Point(**entry) for entry in json.loads(read_file(file))["points"]}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file}: damaged ({error})") from error


@cache
def reference_points() -> Mapping[str, Point]:
    """All reference points that kdzoo ships, by key."""
    return {key: point for file in sorted(FOLDER.glob("*.json")) for key, point in read_points(file).items()}
