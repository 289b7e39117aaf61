"""What `kdzoo advise` knows and how far its advice can be trusted: its trials from committed benches, and its regret on each of them.

    python benchmarks/advice.py            the regret of its first choice on every table, by the trials on other data alone
    python benchmarks/advice.py --write    kdzoo/configs/advice.csv and results/advice/README.md, from results/

The regret on a table: the best method's accuracy on the test images less that of the method that comes first by the rule, in
points; trials on the same data are left out of what the rule knows. "Best" is the best of the whole grid by its test accuracy, which
nobody knows beforehand; the method that validation would choose after the whole grid was paid for has a regret of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import mean

from kdzoo.suite.advice.rule import recommend
from kdzoo.suite.advice.trials import FILE, Trial, as_csv, trials_of
from kdzoo.suite.plan.config import KD
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.orders import rank_correlation
from kdzoo.text import number_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
PAGE = RESULTS / "advice" / "README.md"
FEWEST = 4
"""methods beside plain KD that a table needs for a choice among them to mean anything"""


@dataclass(frozen=True)
class Regret:
    """On one table, in points below the best method: of the first choice, of the choice that is best on validation, of others.

    others: tuned plain KD, and a method drawn at random. data_sets: of how many other data sets the rule knew tables.
    """

    table: tuple[str, str, str]
    methods: int
    known: int
    data_sets: int
    first: str
    best: str
    of_first: float
    of_choices: float
    of_kd: float
    of_random: float


def trials_of_benches(results: Path) -> list[Trial]:
    """The trials of all benches, of studies and those that are still being trained too; a bench is named by its folder below `results`."""
    folders = sorted(folder.parent for folder in results.rglob("runs"))
    return [replace(trial, bench=folder.relative_to(results).as_posix()) for folder in folders for trial in trials_of(read_bench(folder))]


def regrets(trials: Sequence[Trial]) -> list[Regret]:
    """The regret on every table with enough methods, by what the benches on other data say."""
    tables = dict.fromkeys(trial.table for trial in trials)
    return [found for table in tables if (found := _regret(table, trials)) is not None]


def _regret(table: tuple[str, str, str], trials: Iterable[Trial]) -> Regret | None:
    here = {trial.method: trial for trial in trials if trial.table == table}
    others = [trial for trial in trials if trial.data != table[1]]
    known = {trial.method for trial in others if trial.method != KD} & here.keys()
    if len(here) <= FEWEST or len(known) <= FEWEST:
        return None
    choices = [choice.method for choice in recommend(others, sorted(here), {})]
    first, picked = choices[0], max(choices, key=lambda name: here[name].validation or 0.0)
    best = max(here.values(), key=lambda trial: trial.gain)
    return Regret(
        table=table,
        methods=len(here),
        known=len(known),
        data_sets=len({trial.data for trial in others if trial.method in known}),
        first=first,
        best=best.method,
        of_first=best.gain - here[first].gain,
        of_choices=best.gain - here[picked].gain,
        of_kd=best.gain - here[KD].gain,
        of_random=best.gain - mean(trial.gain for trial in here.values()),
    )


def carried_over(trials: Sequence[Trial]) -> list[tuple[tuple[str, str, str], tuple[str, str, str], int, float, float]]:
    """For each two tables of different data: how many methods both have, Spearman's rank correlation of their gains, and its p."""
    found = []
    for one, other in combinations(dict.fromkeys(trial.table for trial in trials), 2):
        gains = [{trial.method: trial.gain for trial in trials if trial.table == table and trial.method != KD} for table in (one, other)]
        if one[1] != other[1] and len(gains[0].keys() & gains[1].keys()) > FEWEST:
            correlation = rank_correlation(*gains)
            found.append((one, other, correlation.methods, correlation.value, correlation.p))
    return found


def page(found: Sequence[Regret], trials: Sequence[Trial]) -> str:
    """The figures as a page."""
    tables = len(dict.fromkeys(trial.table for trial in trials))
    lines = [
        "# How far `kdzoo advise` can be trusted",
        "",
        f"`python benchmarks/advice.py --write` reads {len(trials)} trials of {len({t.method for t in trials})} methods in {tables} "
        "tables from the benches here. For each table, the rule was given the trials of benches on other data alone, and its first "
        "choice is set beside the whole grid. Regret: points of test accuracy below the best method of the grid, in the setting "
        "that validation chose for each.",
        "",
        "| bench, data, pair | methods | other data sets | first choice | its regret | of what validation picks of all choices | "
        "of tuned KD | of a method at random | best |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | --- |",
        *(
            f"| {', '.join(one.table)} | {one.methods} ({one.known} known) | {one.data_sets} | {one.first} | {one.of_first:.2f} | "
            f"{one.of_choices:.2f} | {one.of_kd:.2f} | "
            f"{one.of_random:.2f} | {one.best} |"
            for one in found
        ),
        "",
        _conclusion(found),
        "",
        "Whether an order carries over from one data set to another, by Spearman's rank correlation of the gains over plain KD:",
        "",
        *(
            f"- {one[0]} and {other[0]}: {value:+.2f} over {count} methods (p = {p:.2g})"
            for one, other, count, value, p in carried_over(trials)
        ),
        "",
    ]
    return "\n".join(lines)


def _conclusion(found: Sequence[Regret]) -> str:
    if not found:
        return "No table has enough methods that other benches have tried."
    first, choices, kd, random = (mean(getattr(one, name) for one in found) for name in ("of_first", "of_choices", "of_kd", "of_random"))
    single = sum(one.data_sets < 2 for one in found)
    return (
        f"Over {number_of(len(found), 'table')} the first choice has a mean regret of {first:.2f} points, what validation picks of all "
        f"choices {choices:.2f}, tuned plain KD {kd:.2f}, a method drawn at random {random:.2f}. For {single} of {len(found)} all "
        f"that is known of their methods is from one other data set, so that by the rule nothing stands before plain KD. So few tables, "
        f"of few data sets and pairs, "
        f"say little about others: the advice is an order to try methods in, and the bench decides."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the trials and the page")
    wanted = parser.parse_args()
    trials = trials_of_benches(RESULTS)
    text = page(regrets(trials), trials)
    print(text)
    if wanted.write:
        FILE.write_text(as_csv(trials))
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
