"""A search within a budget in words, from what its runs' folders tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kdzoo.suite.report.cells import method_words
from kdzoo.suite.report.records import Record
from kdzoo.text import number_of

EVERY_SETTING = "every setting trained to the end"
HALVING = "successive halving"


def search_words(searched: Sequence[Record]) -> str:
    """`successive halving, 8.3 of 24 runs`: what was trained, in whole runs, of how many; empty where nothing is paused."""
    return f"{HALVING}, {_whole_runs(searched):.1f} of {number_of(len(searched), 'run')}" if searched else ""


def search_note(searched: Sequence[Record]) -> str:
    """How a search within a budget chose, and what it left; empty where there was none."""
    if not searched:
        return ""
    paused = Counter(record.paused for record in searched if record.paused is not None)
    epochs = searched[0].run.recipe.epochs
    where = ", ".join(f"{count} after epoch {epoch}" for epoch, count in sorted(paused.items()))
    whole = {record.method for record in searched if record.result is not None}
    left = sorted({method_words(record.method) for record in searched} - {method_words(method) for method in whole})
    return (
        f"Searched within a budget by {HALVING} on validation: {sum(paused.values())} of {number_of(len(searched), 'run')} were paused "
        f"({where} of {epochs}) and have no row; all cost as much as {_whole_runs(searched):.1f} whole runs."
        + (f" No whole run of: {', '.join(left)}." if left else "")
    )


def _whole_runs(searched: Sequence[Record]) -> float:
    """How many whole runs cost as much as what was trained; failed ones count as whole."""
    return sum(1.0 if record.paused is None else record.paused / record.run.recipe.epochs for record in searched if _is_trained(record))


def _is_trained(record: Record) -> bool:
    return record.state in ("done", "failed", "paused")
