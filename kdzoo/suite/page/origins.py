"""Where the numbers of a bench come from: its protocol, the environments of its runs, and every run's specification."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kdzoo.runs.canonical import canonical
from kdzoo.runs.flatten import flatten
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.records import Record
from kdzoo.text import number_of


@dataclass(frozen=True)
class Specifications:
    """What all runs have in common, and a row a run with what they do not."""

    shared: Mapping[str, str]
    runs: pd.DataFrame


def specifications(bench: BenchRecords, ids: Iterable[str]) -> Specifications:
    """Every part of the runs of these ids, flat, such as `recipe.lr`."""
    chosen_ids = set(ids)
    parts = {record.id: _flat(record) for record in bench.records if record.id in chosen_ids}
    names = list(dict.fromkeys(name for part in parts.values() for name in part))
    shared = {name: values.pop() for name in names if len(values := {part.get(name, "") for part in parts.values()}) == 1}
    differing = [name for name in names if name not in shared]
    rows = [{"id": run_id, **{name: part.get(name, "") for name in differing}} for run_id, part in parts.items()]
    return Specifications(shared, pd.DataFrame(rows, columns=["id", *differing]))


def _flat(record: Record) -> dict[str, str]:
    return {name: _text(value) for name, value in flatten(canonical(record.run.model_dump(mode="json"))).items()}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def environment_rows(bench: BenchRecords) -> pd.DataFrame:
    """What the runs were trained with: every version and device, and how many runs it is of where they differ."""
    found: dict[str, Counter[str]] = {}
    for record in bench.records:
        for name, value in ((record.result or {}).get("environment") or {}).items():
            if value is not None:
                found.setdefault(name, Counter())[_text(value)] += 1
    rows = [(name.replace("_", " "), _counted(values)) for name, values in found.items()]
    return pd.DataFrame(rows, columns=["what", "value"])


def _counted(values: Counter[str]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{value} ({number_of(count, 'run')})" for value, count in values.most_common())
