"""Planted bugs: small changes to kdzoo's own numerics, each of which the tests are run against; what they let pass is listed.

    python benchmarks/mutants.py --count 500 --write results/mutants    # goes on where it was stopped
    python benchmarks/mutants.py --check                                # do the tests pass where nothing is changed?

A mutant is one change inside a function (mutant_operators.py), drawn by a seed, as many from each area as its share says and
in turn from each of its modules. Forks run the tests that mutant_tests.py names, up to the first that fails, on a copy of the
package with this change (mutant_trials.py); one that takes more than the limit of processor time counts as caught. A module's
tests run without a change first, and nothing is judged by them where one fails. Needs the extra `mutants`.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from mutant_operators import Site, Source
from mutant_tests import ROOT, modules, selections
from mutant_trials import Copy, Job

SEED = 0
SHARES = {"methods": 0.6, "training": 0.13, "teachers": 0.07, "report": 0.2}
WARM = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy.stats",
    "pandas",
    "hypothesis",
    "pytest",
    "pydantic",
    "typer",
    "rich",
    "yaml",
    "altair",
)
SURVIVED, CAUGHT, OPEN = "survived", "caught", "open"


@dataclass(frozen=True)
class Row:
    """A line of mutants.csv. by: the first test that failed. reason: of a survivor, why no test can see it, or "open"."""

    area: str
    file: str
    line: str
    kind: str
    before: str
    after: str
    outcome: str
    by: str
    reason: str

    @property
    def key(self) -> tuple[str, ...]:
        return self.file, self.line, self.kind, self.before, self.after


@dataclass(frozen=True)
class Mutant:
    """One change to one module."""

    area: str
    module: str
    source: Source
    site: Site

    @property
    def key(self) -> tuple[str, ...]:
        """What `Row.key` is for it."""
        return self.module, str(self.site.line), self.site.kind, self.site.before, self.site.after

    def row(self, failed: str | None) -> Row:
        """Its row, where this test failed, or none."""
        outcome, by, reason = (SURVIVED, "", OPEN) if failed is None else (CAUGHT, failed.split("[")[0], "")
        return Row(self.area, *self.key, outcome, by, reason)


def drawn(area: str, count: int, seed: int = SEED) -> list[Mutant]:
    """The first mutants of an area: its modules in turn, each module's sites in an order that the seed gives."""
    queues = []
    for module in modules()[area]:
        source = Source((ROOT / module).read_text())
        order = sorted(source.sites, key=lambda site: (site.line, site.kind, site.before, site.after))
        random.Random(f"{seed} {module}").shuffle(order)
        queues.append([Mutant(area, module, source, site) for site in order])
    random.Random(f"{seed} {area}").shuffle(queues)
    rounds = range(max(map(len, queues)))
    return [queue[turn] for turn in rounds for queue in queues if turn < len(queue)][:count]


def is_left(row: Row | None, *, again: bool) -> bool:
    """Whether a mutant with this row is still to be judged; again: those that are open."""
    return row is not None and row.reason == OPEN if again else row is None


def judge(copy: Copy, mutants: Sequence[Mutant], nth: int) -> Iterator[Row]:
    """A row for each mutant by the nth of its module's selections, the nearest first.

    Raises SystemExit at the end, where a test failed without a change: by it no mutant is judged.
    """
    grouped = [(module, list(group)) for module, group in groupby(sorted(mutants, key=attrgetter("module")), attrgetter("module"))]
    grouped = [(module, group) for module, group in grouped if len(selections(module)) > nth]
    jobs = [
        Job(module, (ROOT / module).read_text(), [mutant.source.mutate(mutant.site) for mutant in group], selections(module)[nth])
        for module, group in grouped
    ]
    fail_unchanged = []
    for answer in copy.first_failures(jobs):
        if answer.text is not None:
            yield grouped[answer.job][1][answer.text].row(answer.failed)
        elif answer.failed is not None:
            fail_unchanged.append(answer.failed)
    if fail_unchanged:
        raise SystemExit("\n".join(f"{test} fails where nothing is changed" for test in fail_unchanged))


def read_rows(path: Path) -> list[Row]:
    """The lines of mutants.csv; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [Row(**line) for line in csv.DictReader(file)]


def write_rows(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, rows))


def unchanged_failures(copy: Copy) -> Iterator[str]:
    """Tests that fail where nothing is changed: they would catch every mutant."""
    nearest = [module for area in modules().values() for module in area]
    jobs = {selections(module)[0]: Job(module, (ROOT / module).read_text(), [], selections(module)[0]) for module in nearest}
    for answer in copy.first_failures(list(jobs.values())):
        if answer.failed is not None:
            yield answer.failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--areas", default=",".join(SHARES), help="some of " + ", ".join(SHARES))
    parser.add_argument("--write", type=Path, default=ROOT / "results" / "mutants")
    parser.add_argument("--again", action="store_true", help="judges the open survivors again, after new tests")
    parser.add_argument("--nth", type=int, default=0, help="which of a module's selections of tests: 0 is the nearest")
    parser.add_argument("--minutes", type=float, default=600.0, help="ends after so many")
    parser.add_argument("--check", action="store_true", help="runs the tests where nothing is changed")
    args = parser.parse_args()
    for name in WARM:
        importlib.import_module(name)
    path, end = args.write / "mutants.csv", time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory(prefix="kdzoo-mutants-") as folder:
        copy = Copy(Path(folder))
        if args.check:
            failures = list(unchanged_failures(copy))
            sys.exit("\n".join(failures) or 0)
        rows = {row.key: row for row in read_rows(path)}
        print(f"seed {SEED}")
        mutants = [mutant for area in args.areas.split(",") for mutant in drawn(area, round(args.count * SHARES[area]))]
        left = [mutant for mutant in mutants if is_left(rows.get(mutant.key), again=args.again)]
        for row in judge(copy, left, args.nth):
            rows[row.key] = row
            write_rows(path, list(rows.values()))
            print(f"{row.outcome:9} {row.file}:{row.line} {row.before} -> {row.after}  {row.by}", flush=True)
            if time.monotonic() > end:
                break


if __name__ == "__main__":
    main()
