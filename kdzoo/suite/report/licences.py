"""Which licences the runs of a bench were made under, as their run.json records them. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable

from kdzoo.runs.licences import PARTS, Licensed, recorded
from kdzoo.suite.report.records import Record


def licences_of(records: Iterable[Record]) -> tuple[Licensed, ...]:
    """What runs were made from, each thing once, in the order of its parts; empty where no run records it."""
    things = dict.fromkeys(thing for record in records for thing in recorded(record.about))
    return tuple(sorted(things, key=lambda thing: PARTS.index(thing.part)))


def licence_words(records: Iterable[Record]) -> str:
    """The same in a sentence; empty where no run records it."""
    things = licences_of(records)
    return f"Licences: {'; '.join(map(str, things))}." if things else ""
