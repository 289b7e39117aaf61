"""What a row costs that can be trusted: core-hours until its detectable difference to tuned plain KD is at most 0.35 points.

    python benchmarks/trusted_row.py results/timm results/zoo

From each table's own error model: a row's error falls with the root of its number of seeds, and its degrees of freedom grow with
them. Beside it the seeds that two rows need by their own spreads alone: of the differences seed by seed (paired), and where seeds are
not paired (Welch). Beside the seeds a row pays for the settings among which it was chosen, each on the seeds of the sweep. Hours are
those of runs trained alone, by the probe of each; plain KD needs the same seeds, once for all rows of a table, and so does the student
alone.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scipy.special import stdtrit

from kdzoo.suite.plan.config import KD, NONE
from kdzoo.suite.report.bench import read_bench
from kdzoo.suite.report.blocks import TEACHER, Block, Standing, position_of
from kdzoo.suite.report.comparisons import comparisons
from kdzoo.suite.study.race_table import TRUSTED

MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Cost:
    """What a method's row takes: seeds of the chosen setting, and the hours of these and of the settings that were tried.

    paired, unpaired: the seeds that it would take by the spread of its differences to plain KD alone, seed by seed, and by its own
    spread and plain KD's.
    """

    method: str
    seeds: int
    paired: int
    unpaired: int
    hours: float
    search_hours: float


def seeds_needed(error: float, freedom: float, seeds: int) -> int:
    """How many seeds bring the detectable difference down to TRUSTED, where `seeds` of them have this error and these degrees."""
    one = error * math.sqrt(seeds)
    for count in itertools.count(2):
        degrees = freedom * (count - 1) / (seeds - 1)
        if (stdtrit(degrees, 0.975) + stdtrit(degrees, 0.8)) * one / math.sqrt(count) <= TRUSTED or count >= MOST_SEEDS:
            return count
    raise AssertionError("counting ends by itself")


def costs_of(block: Block, sweep: Block) -> Iterator[Cost]:
    """Every row of a table but the controls and those whose error is not known. sweep: the table in which settings were chosen."""
    tested = comparisons(block, KD)
    searches = {standing.record.method: standing.tried * len(standing.done) * hours_of(standing) for standing in sweep.standings}
    plain = block.only(KD)
    for standing in block.standings:
        if (
            standing.record.method in (KD, NONE, TEACHER)
            or (at := position_of(tested.standings, standing)) is None
            or tested.contrast is None
            or plain is None
        ):
            continue
        error, freedom, seeds = float(tested.contrast.error[at]), float(tested.contrast.freedom[at]), len(standing.done)
        if math.isfinite(error) and math.isfinite(freedom) and seeds > 1:
            needed, run = seeds_needed(error, freedom, seeds), hours_of(standing)
            paired = seeds_needed(math.sqrt(variance_of_gaps(standing, plain) / seeds), seeds - 1, seeds)
            unpaired = seeds_needed(math.sqrt((variance_of(standing) + variance_of(plain)) / seeds), 2 * (seeds - 1), seeds)
            yield Cost(standing.record.method, needed, paired, unpaired, needed * run, searches[standing.record.method])


def variance_of(standing: Standing) -> float:
    """The variance over seeds of a row's test accuracy."""
    return statistics.variance(by_seed(standing).values())


def variance_of_gaps(standing: Standing, plain: Standing) -> float:
    """The variance of the differences of two rows' test accuracies on the seeds that both have."""
    own, other = by_seed(standing), by_seed(plain)
    return statistics.variance(own[seed] - other[seed] for seed in own.keys() & other.keys())


def by_seed(standing: Standing) -> dict[int, float]:
    return {record.run.seed: record.result["last"]["test"]["top1"] for record in standing.done if record.result is not None}


def hours_of(standing: Standing) -> float:
    """Hours of a run alone, by its probe."""
    return statistics.mean(record.result["cost"]["train_seconds"] for record in standing.done if record.result is not None) / 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benches", nargs="+", type=Path)
    print("| table | method | seeds | seeds paired | seeds unpaired | core-hours of these seeds | and of the search |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for folder in parser.parse_args().benches:
        blocks = read_bench(folder).blocks
        for block in blocks:
            sweep = next(one for one in blocks if one.table_key.pair == block.table_key.pair and one.table_key.phase == "sweep")
            rows = sorted(costs_of(block, sweep), key=lambda cost: cost.hours)
            for cost in rows:
                own = f"{cost.seeds} | {cost.paired} | {cost.unpaired}"
                print(f"| {folder.name} | {cost.method} | {own} | {cost.hours:.1f} | {cost.search_hours:.1f} |")
            if rows:
                middle = statistics.median(cost.hours + cost.search_hours for cost in rows)
                seeds = statistics.median(cost.seeds for cost in rows)
                paired = statistics.median(cost.paired for cost in rows)
                unpaired = statistics.median(cost.unpaired for cost in rows)
                own = f"{seeds:g} | {paired:g} | {unpaired:g}"
                print(f"| {folder.name} | median of {len(rows)} rows | {own} | {middle:.1f} with the search | |")


if __name__ == "__main__":
    main()
