"""What a search within a budget (`kdzoo bench --budget`) gives up: replayed from the epochs that committed benches have recorded.

    python benchmarks/budget.py                          # results/zoo and results/zoo_digits at a third of the grid's cost
    python benchmarks/budget.py --share 0.2 --draws 1000
    python benchmarks/budget.py --optuna 20              # Optuna's asynchronous rule beside it (pip install 'kdzoo[peers]'), 20 orders

A search replayed is the same search: runs that go on are trained as if they had never been paused, so their epochs are those of a whole
run. Every seed of a bench is a grid of its own, and so are its seeds together where it has several. Of each grid: which setting the
search chooses on validation, and how many points of test top-1 that setting lies below the one that the whole grid chooses on
validation, and below the one that is best on test. Beside it a random part of the grid at the same cost, trained to the end, over many
draws. A grid is one draw of settings: the same is repeated on random two thirds of its settings (the controls always among them).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdzoo.errors import InputError
from kdzoo.runs.metrics_file import read_lines
from kdzoo.runs.store import Store
from kdzoo.suite.plan.budget import rungs, rungs_in_words
from kdzoo.suite.plan.config import CONTROLS
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.promotion import Order, best_settings
from kdzoo.suite.report.records import Record
from kdzoo.suite.report.selection import candidates, order_of

Choice = Callable[["Grid", int, np.random.Generator], str]
PAIRS = {"zoo": "resnet20/resnet8", "zoo_digits": "digits_teacher/digits_student"}
PART = 2 / 3
"""the share of a grid's settings that a smaller grid has"""


@dataclass(frozen=True)
class Grid:
    """The settings of a sweep with one number of epochs: by name the method, the order after each epoch, and test top-1 at the end."""

    name: str
    seeds: int
    epochs: int
    methods: Mapping[str, str]
    orders: Mapping[str, Sequence[Order]]
    tests: Mapping[str, float]

    def part(self, names: Sequence[str]) -> Grid:
        """The same with these settings alone."""
        kept = {key: {name: getattr(self, key)[name] for name in names} for key in ("methods", "orders", "tests")}
        return Grid(self.name, self.seeds, self.epochs, **kept)

    def best_after(self, names: Sequence[str], epoch: int) -> str:
        """The setting that validation chooses after an epoch."""
        return max(names, key=lambda name: self.orders[name][epoch - 1])


def read_grids(folder: Path, pair: str) -> list[Grid]:
    """One grid for each seed of a bench, and one of all seeds together where there are several."""
    bench = read_bench(folder)
    records = [
        one for one in bench.records if one.table_key.phase == "sweep" and one.table_key.pair in (pair, f"-/{pair.partition('/')[2]}")
    ]
    every = sorted({record.run.seed for record in records})
    return [
        _grid(
            bench.folder, [one for one in records if one.run.seed in seeds], f"{bench.name}, seed {', '.join(map(str, seeds))}", len(seeds)
        )
        for seeds in [*([seed] for seed in every), *([every] if len(every) > 1 else [])]
    ]


def _grid(folder: Path, records: list[Record], name: str, seeds: int) -> Grid:
    methods, orders, tests = {}, {}, {}
    for candidate in candidates(records):
        record = candidate.records[0]
        lines = [read_lines(Store(folder).run(one.id).metrics, one.id) for one in candidate.done]
        epochs = record.run.recipe.epochs
        if len(lines) < seeds or any(len(one) < epochs or one[0]["val"] is None for one in lines):
            continue
        deciding = [metric.name for metric in record.task.deciding]
        methods[record.id] = record.method
        orders[record.id] = [
            order_of(record, {metric: [one[epoch]["val"][metric] for one in lines] for metric in deciding}) for epoch in range(epochs)
        ]
        tests[record.id] = float(np.mean([one.headline("test") for one in candidate.done]))
    return Grid(name, seeds, epochs, methods, orders, tests)


def by_halving(grid: Grid, budget: int, _: np.random.Generator) -> str:
    """What `--budget` chooses; raises InputError where the budget is too small."""
    names, before = list(grid.methods), 0
    for rung in rungs(len(names), grid.seeds, grid.epochs, budget, len(CONTROLS) + 1):
        if before:
            names = best_settings({name: grid.orders[name][before - 1] for name in names}, grid.methods, rung.settings, CONTROLS)
        before = rung.epoch
    return grid.best_after(names, grid.epochs)


def by_chance(grid: Grid, budget: int, draws: np.random.Generator) -> str:
    """What validation chooses among as many random settings as the budget can train to the end."""
    names = list(grid.methods)
    return grid.best_after([names[at] for at in draws.permutation(len(names))[: budget // grid.seeds]], grid.epochs)


def by_optuna(grid: Grid, budget: int, draws: np.random.Generator) -> str:
    """What Optuna's asynchronous successive halving chooses: one setting after the other in a random order, until the budget is spent."""
    import optuna

    first = rungs(len(grid.methods), grid.seeds, grid.epochs, budget, len(CONTROLS) + 1)[0].epoch
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=3)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    names, left, whole = list(grid.methods), budget * grid.epochs // grid.seeds, []
    for at in draws.permutation(len(names)):
        trial = study.ask()
        for epoch in range(1, grid.epochs + 1):
            if left == 0:
                break
            left -= 1
            trial.report(float(grid.orders[names[at]][epoch - 1][0]), epoch)
            if epoch == grid.epochs:
                whole.append(names[at])
            elif trial.should_prune():
                break
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return grid.best_after(whole, grid.epochs)


def regrets(grid: Grid, chosen: str) -> tuple[float, float, bool]:
    """Points of test top-1 below the whole grid's choice and below the best, and whether it is the whole grid's choice."""
    of_grid = grid.best_after(list(grid.methods), grid.epochs)
    best = max(grid.tests.values())
    return 100 * (grid.tests[of_grid] - grid.tests[chosen]), 100 * (best - grid.tests[chosen]), chosen == of_grid


def smaller(grid: Grid, draws: np.random.Generator) -> Grid:
    """A random part of a grid, its controls among it."""
    controls = [name for name, method in grid.methods.items() if method in CONTROLS]
    others = [name for name in grid.methods if name not in controls]
    count = round(PART * len(grid.methods)) - len(controls)
    return grid.part([*controls, *(others[at] for at in draws.permutation(len(others))[:count])])


def repeated(grid: Grid, share: float, choose: Choice, draws: int, *, whole: bool) -> str:
    """Mean regrets with their standard errors over many draws of the order, and of the settings unless the grid is taken whole."""
    found = []
    for number in range(draws):
        source = np.random.default_rng(number)  # the same smaller grids for every rule
        one = grid if whole else smaller(grid, source)
        try:
            found.append(regrets(one, choose(one, int(share * len(one.methods) * one.seeds), source)))
        except InputError as error:
            return f"not possible: {error}"
    values = np.array(found, float)
    errors = values.std(0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.zeros(3)
    means = [
        f"{mean:+.2f} ± {error:.2f}" if len(values) > 1 else f"{mean:+.2f}" for mean, error in zip(values.mean(0), errors, strict=True)
    ]
    return f"{means[0]} | {means[1]} | {100 * values[:, 2].mean():.0f} %"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--share", type=float, default=1 / 3, help="of the grid's cost (1/3)")
    parser.add_argument("--draws", type=int, default=500, help="of a random part, and of smaller grids (500)")
    parser.add_argument("--optuna", type=int, default=0, metavar="ORDERS", help="orders of Optuna's rule (0: leave it out)")
    asked = parser.parse_args()
    if asked.optuna:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
    print("| grid | rule | points below the grid's choice | below the best | the grid's choice |\n| --- | --- | --- | --- | --- |")
    for bench, pair in PAIRS.items():
        for grid in read_grids(asked.results / bench, pair):
            size = len(grid.methods)
            name = f"{grid.name}: {size} settings"
            budget = int(asked.share * size * grid.seeds)
            print(f"| {name} | whole grid | {repeated(grid, 1.0, by_chance, 1, whole=True)} |")
            words = rungs_in_words(rungs(size, grid.seeds, grid.epochs, budget, len(CONTROLS) + 1))
            print(f"| | halving ({words}) | {repeated(grid, asked.share, by_halving, 1, whole=True)} |")
            print(f"| | random part | {repeated(grid, asked.share, by_chance, asked.draws, whole=True)} |")
            if asked.optuna:
                print(f"| | Optuna's rule | {repeated(grid, asked.share, by_optuna, asked.optuna, whole=True)} |")
            print(f"| two thirds of it, {asked.draws} times | whole grid | {repeated(grid, 1.0, by_chance, asked.draws, whole=False)} |")
            print(f"| | halving | {repeated(grid, asked.share, by_halving, asked.draws, whole=False)} |")
            print(f"| | random part | {repeated(grid, asked.share, by_chance, asked.draws, whole=False)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
