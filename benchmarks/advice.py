"""What `kdzoo advise` knows and how far its advice can be trusted: its trials from committed benches, and its regret on each of them.

    python benchmarks/advice.py            the regret of its first choice on every table, by the trials on other data alone
    python benchmarks/advice.py --write    kdzoo/configs/advice.csv and results/advice/README.md, from results/

The regret on a table: the best method's accuracy on the test images less that of the method that comes first by the rule, in
points; trials on the same data are left out of what the rule knows. "Best" is the best of the whole grid by its test accuracy, which
nobody knows beforehand. Beside it stand the regrets of what validation picks of all choices, of the best of them on test, of plain
KD, of a method drawn at random, of the best of as many drawn methods as there are choices, and of the rule as it was before.

A table by which the rule was made does not judge it. SEEN names those that were here when it was last changed.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import mean

from kdzoo.suite.advice.rule import Choice, recommend
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


FROZEN = "2026-12-01"
"""when the rule was last changed; a change moves it, and adds all tables that are here then to SEEN"""
SEEN = (
    ("papers/order-transfer/digits-resnets", "spoken_digits", "resnet20/resnet8"),
    ("zoo", "cifar10_16", "resnet20/resnet8"),
    ("zoo_digits", "digits", "digits_teacher/digits_student"),
)
"""bench, data and pair of the tables that had been seen when the rule was changed last"""


@dataclass(frozen=True)
class Regret:
    """On one table, in points below the best method: of the first choice, of the choices in two ways, of others.

    choices: how many are recommended. of_picked: of that which validation picks of them; of_best_choice: of that which is best on test.
    of_drawn: of the best of as many methods drawn at random. earlier, of_earlier: the first choice by the rule as it was before, and
    its regret. data_sets: of how many other data sets the rule knew tables.
    """

    table: tuple[str, str, str]
    methods: int
    known: int
    data_sets: int
    choices: int
    first: str
    earlier: str
    best: str
    of_first: float
    of_picked: float
    of_best_choice: float
    of_kd: float
    of_random: float
    of_drawn: float
    of_earlier: float

    @property
    def judges(self) -> bool:
        """Whether the table was not seen when the rule was made."""
        return self.table not in SEEN


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
    recommended = recommend(others, sorted(here), {})
    choices = [choice.method for choice in recommended]
    first, picked = choices[0], max(choices, key=lambda name: here[name].validation or 0.0)
    earlier = next((choice.method for choice in by_expectation(recommended) if has_gained_twice(choice)), KD)
    best = max(here.values(), key=lambda trial: trial.gain)
    gains = [trial.gain for trial in here.values()]
    return Regret(
        table=table,
        methods=len(here),
        known=len(known),
        data_sets=len({trial.data for trial in others if trial.method in known}),
        choices=len(choices),
        first=first,
        earlier=earlier,
        best=best.method,
        of_first=best.gain - here[first].gain,
        of_picked=best.gain - here[picked].gain,
        of_best_choice=best.gain - max(here[name].gain for name in choices),
        of_kd=best.gain - here[KD].gain,
        of_random=best.gain - mean(gains),
        of_drawn=best.gain - expected_best(gains, len(choices)),
        of_earlier=best.gain - here[earlier].gain,
    )


def expected_best(values: Sequence[float], count: int) -> float:
    """The mean of the largest of `count` values, over all draws without replacement."""
    ordered = sorted(values)
    return sum(value * math.comb(place, count - 1) for place, value in enumerate(ordered)) / math.comb(len(ordered), count)


def by_expectation(choices: Iterable[Choice]) -> list[Choice]:
    """The choices but for plain KD, the one that is expected to gain most first."""
    return sorted((choice for choice in choices if choice.method != KD), key=lambda choice: (-choice.expected, choice.method))


def has_gained_twice(choice: Choice) -> bool:
    """What the rule asked for before: better than tuned plain KD on two data sets or more, in the mean over the tables of each."""
    by_data: dict[str, list[float]] = {}
    for trial in choice.trials:
        by_data.setdefault(trial.data, []).append(trial.gain)
    return sum(sum(gains) > 0 for gains in by_data.values()) >= 2


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
        "that validation chose for each. *Picked*: the choice that is best on validation; *listed*: the one that is best on the test "
        "images; *drawn*: the best of as many methods drawn at random.",
        "",
        "| bench, data, pair | judges the rule | methods | other data sets | first choice | its regret | of picked | choices | of listed | "
        "of drawn | of tuned KD | of a method at random | best | first by the earlier rule | its regret |",
        "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- | ---: |",
        *(
            f"| {', '.join(one.table)} | {'yes' if one.judges else 'no'} | {one.methods} ({one.known} known) | {one.data_sets} | "
            f"{one.first} | {one.of_first:.2f} | {one.of_picked:.2f} | {one.choices} | {one.of_best_choice:.2f} | {one.of_drawn:.2f} | "
            f"{one.of_kd:.2f} | {one.of_random:.2f} | {one.best} | {one.earlier} | {one.of_earlier:.2f} |"
            for one in found
        ),
        "",
        *_conclusion(found),
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


def _conclusion(found: Sequence[Regret]) -> list[str]:
    """The mean regrets, apart for the tables that were seen when the rule was made, as paragraphs."""
    if not found:
        return ["No table has enough methods that other benches have tried."]
    seen, new = [one for one in found if not one.judges], [one for one in found if one.judges]
    single = sum(one.data_sets < 2 for one in found)
    return [
        *(_history(seen) if seen else []),
        *(_verdict(new) if new else ["Every table was seen when the rule was made, so that nothing judges it."]),
        "",
        f"For {single} of {len(found)} tables all that is known of their methods is from one other data set, so that by the rule nothing "
        "stands before plain KD. So few tables, of few data sets and pairs, say little about others: the advice is an order to try "
        "methods in, and the bench decides.",
    ]


def _history(seen: Sequence[Regret]) -> list[str]:
    """Why the rule is what it is, and what it comes to on the tables that it was made by."""
    worst = max(seen, key=lambda one: one.of_earlier - one.of_kd)
    return [
        f"**The rule was changed after {len(seen)} of these tables had been seen, which do not judge it.** "
        f"Since {FROZEN}, a method stands before plain KD only where intervals show it better on two data sets. Before, means above plain "
        f"KD on two data sets were enough, which puts {worst.earlier} first on {worst.table[0]}, with a regret of {worst.of_earlier:.2f} "
        f"points there against {worst.of_kd:.2f} of plain KD; hence the change. On the tables that were seen: {_means(seen)}.",
        "",
    ]


def _verdict(new: Sequence[Regret]) -> list[str]:
    """What the rule comes to on the tables that came after it."""
    known = {data for _, data, _ in SEEN}
    alike = sum(one.table[1] in known for one in new)
    return [
        f"On tables that came later: {_means(new)}. Of these, {alike} of {len(new)} "
        f"{'is' if alike == 1 else 'are'} of a data set on which another table had been seen."
    ]


def _means(found: Sequence[Regret]) -> str:
    """The mean regrets over some tables, in words."""
    names = ("of_first", "of_best_choice", "of_drawn", "of_kd", "of_random", "of_earlier")
    first, listed, drawn, kd, random, earlier = (mean(getattr(one, name) for one in found) for name in names)
    return (
        f"over {number_of(len(found), 'table')} a mean regret of {first:.2f} points of the first choice, {listed:.2f} of the best that is "
        f"listed beside {drawn:.2f} of the best of as many at random, {kd:.2f} of tuned plain KD, {random:.2f} of a method at random, and "
        f"{earlier:.2f} of the first choice by the earlier rule"
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
