"""The rule of a race: which methods of a refit are trained with more seeds. Free of torch.

It looks at the refit's own seeds alone, so that it comes to the same however many runs the race has added since.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from kdzoo.errors import InputError
from kdzoo.suite.plan.config import CONTROLS, BenchConfig
from kdzoo.suite.plan.race import Race
from kdzoo.suite.plan.refit import fresh_seeds
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.blocks import CONTROLS as COLUMNS_OF
from kdzoo.suite.report.blocks import Block, Standing
from kdzoo.suite.report.comparisons import comparisons
from kdzoo.suite.report.error_model import sample_sd
from kdzoo.suite.report.records import Record
from kdzoo.text import number_of

REFIT = "refit"


@dataclass(frozen=True)
class Decision:
    """The settings that the rule selects in one table of a refit: those with the best means first, then the widest intervals."""

    block: Block
    best: tuple[Standing, ...]
    widest: tuple[Standing, ...]
    controls: tuple[Standing, ...]

    @property
    def standings(self) -> tuple[Standing, ...]:
        """Every setting that gets more seeds, the controls first."""
        return (*self.controls, *self.best, *self.widest)

    def __str__(self) -> str:
        parts = [("best", self.best), ("widest interval", self.widest)]
        texts = [f"{word}: {', '.join(standing.record.method for standing in standings)}" for word, standings in parts if standings]
        return f"{self.block.table_key.pair}: {'; '.join(texts) or 'no method, since each of them has collapsed or failed'}"


def decide(bench: BenchRecords, config: BenchConfig, race: Race) -> tuple[Decision, ...]:
    """The rule applied to each table of the refit; raises InputError where its runs are not all there, or have no interval."""
    base = of_refit(bench, config)
    blocks = [block for block in base.blocks if block.table_key.phase == REFIT]
    missing = [record for block in blocks for record in block.records if record.state not in ("done", "failed")]
    if not blocks or missing:
        reason = f"{number_of(len(missing), 'run')} of its refit missing" if missing else "its refit has not begun"
        raise InputError(f"stage {race.stage}: not decided yet, {reason}")
    return tuple(_decision(block, race) for block in blocks)


def of_refit(bench: BenchRecords, config: BenchConfig) -> BenchRecords:
    """The runs of a sweep and of its refit, without those that a race has added."""
    return replace(bench, records=tuple(record for record in bench.records if not is_added(record, bench.records, config)))


def of_race(bench: BenchRecords, config: BenchConfig) -> BenchRecords:
    """The runs that a race has added alone: the choice of methods has not seen them."""
    return replace(bench, records=tuple(record for record in bench.records if is_added(record, bench.records, config)))


def is_added(record: Record, records: Iterable[Record], config: BenchConfig) -> bool:
    """Whether a run has a seed that the refit itself does not train."""
    return record.table_key.phase == REFIT and record.run.seed not in fresh_seeds(record.method, config, seeds_of_sweeps(records))


def seeds_of_sweeps(records: Iterable[Record]) -> list[int]:
    return [record.run.seed for record in records if record.about and record.table_key.phase == "sweep"]


def more_seeds(method: str, config: BenchConfig, race: Race, used: Iterable[int]) -> range:
    """The seeds that a race adds to those of a method's refit: the next ones."""
    own = fresh_seeds(method, config, used)
    return range(max(own) + 1, max(own) + 1 + race.seeds_for(method) - len(own))


def _decision(block: Block, race: Race) -> Decision:
    controls = tuple(found for name in CONTROLS if (found := block.only(name)) is not None)
    contenders = [standing for standing in block.healthy if standing.record.method not in CONTROLS]
    ranked = sorted(contenders, key=lambda one: (-block.metric.sign * round(one.mean, 10), one.record.method))
    best, rest = ranked[: race.best], ranked[race.best :]
    return Decision(block, tuple(best), tuple(_by_width(block, race, rest)[: race.widest]), controls)


def _by_width(block: Block, race: Race, standings: list[Standing]) -> list[Standing]:
    """The widest interval of the difference to the control first; of equal ones, which a pooled error makes, the largest own spread."""
    name = next(column for column, control in COLUMNS_OF.items() if control == race.against)
    tests = comparisons(block, race.against)
    if race.widest and standings and tests.contrast is None:
        raise InputError(
            f"stage {race.stage}: no interval of differences to {race.against}, which has no healthy runs on {block.table_key.pair}"
        )

    def key(standing: Standing) -> tuple[float, float, str]:
        columns = tests.columns(f"vs_{name}", standing)
        width = float(columns[f"vs_{name}_high"] - columns[f"vs_{name}_low"])
        return -round(width, 10), -round(sample_sd(list(standing.values.values())), 10), standing.record.method

    return sorted(standings, key=key) if race.widest else []
