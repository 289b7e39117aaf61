"""Which edition of the benchmark a table is of. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kdzoo.errors import InputError
from kdzoo.suite.plan.edition import read_edition
from kdzoo.suite.plan.starts import read_starts
from kdzoo.suite.report.records import Record
from kdzoo.text import number_of


def edition_of(folder: Path) -> str | None:
    """The edition that a bench was last asked to be of; None where it was asked for none. Raises InputError for a damaged file."""
    editions = [start.config.get("edition") for start in read_starts(folder)]
    return next((str(name) for name in reversed(editions) if name is not None), None)


def misfits(name: str, records: Iterable[Record]) -> dict[str, list[str]]:
    """By id, why finished runs are not of an edition; raises InputError for an edition that is not known."""
    edition = read_edition(name)
    found = {}
    for record in records:
        reasons = list(edition.misfits(record.run, record.about))
        if record.result is not None:
            reasons += edition.other_packages(record.result["environment"])
        if reasons:
            found[record.id] = reasons
    return found


def edition_words(folder: Path, records: Iterable[Record], *, searched: bool) -> str:
    """What stands below a table of a bench that was asked to be of an edition: that it is, or why it is not; empty for any other.

    searched: whether its settings were chosen within a budget.
    """
    try:
        name = edition_of(folder)
        if name is None:
            return ""
        wrong = misfits(name, records)
    except InputError as error:
        return error.problems[0]
    if searched:
        return f"Not of edition {name}: its settings were searched within a budget, and not all of them trained to the end."
    if not wrong:
        return f"Edition {name}: every run fits it."
    run_id, reasons = next(iter(sorted(wrong.items())))
    do = "does" if len(wrong) == 1 else "do"
    return f"Not of edition {name}: {number_of(len(wrong), 'run')} {do} not fit it, such as {run_id}: {'; '.join(reasons)}."
