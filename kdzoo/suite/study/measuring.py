"""Every number of a study, from the folders of its runs alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdzoo.errors import InputError
from kdzoo.suite.plan.config import CONTROLS
from kdzoo.suite.plan.refit import refit_seeds, wants_refit
from kdzoo.suite.report.blocks import Block
from kdzoo.suite.report.intervals import mean_interval
from kdzoo.suite.study.measured import Measured
from kdzoo.suite.study.measures import TEACHER, Cell, Measure
from kdzoo.suite.study.metrics import lower_is_better, resolution_of, value_of
from kdzoo.suite.study.stages import Wanted, planned_bench, settings_in, wanted_runs
from kdzoo.suite.study.steps.perform import read_results
from kdzoo.suite.study.study import Study, step_seeds
from kdzoo.text import number_of

Blocks = Mapping[str, tuple[Block, ...]]


def measure_all(study: Study, folder: Path) -> tuple[Measured, ...]:
    """Every measurement of a study, as far as its runs are done."""
    blocks: Blocks = {
        stage.name: planned_bench(folder / stage.name).blocks if (folder / stage.name / "runs").is_dir() else () for stage in study.benches
    }
    return tuple(_measured(study, measure, blocks, folder) for measure in study.measured())


def _measured(study: Study, measure: Measure, blocks: Blocks, folder: Path) -> Measured:
    planned = planned_seeds(study, measure)
    try:
        return _judged(study, measure, blocks, folder, planned)
    except InputError as error:
        return Measured(measure, {}, 0.0, planned, "; ".join(error.problems))


def planned_seeds(study: Study, measure: Measure) -> int:
    """On how many seeds a measurement stands once its stages are done: on those that all its cells have; a teacher is one training."""
    seeds = [_seeds_of(study, cell) for cell in measure.cells if not _is_one(study, cell)]
    return len(frozenset.intersection(*seeds)) if seeds else 1


def _seeds_of(study: Study, cell: Cell) -> frozenset[tuple[bool, int]]:
    """The seeds of a cell's runs, each with whether it is one of a refit, which has others than the sweep."""
    stage = study.stage(cell.stage)
    if stage.step is not None:
        return frozenset((False, seed) for seed in stage.step.groups(step_seeds(study, stage.step)))
    config = study.config(stage)
    assert cell.method is not None
    refit, race = wants_refit(config) if cell.phase is None else cell.phase == "refit", study.race_of(cell.stage)
    if refit and race is not None and cell.method in CONTROLS:  # which other methods get more seeds is decided by their runs
        return frozenset((refit, seed) for seed in range(race.seeds_for(cell.method)))
    return frozenset((refit, seed) for seed in (refit_seeds(cell.method, config) if refit else config.seeds_for(cell.method)))


@dataclass(frozen=True)
class Values:
    """A cell's values by seed, what one test image makes of one, and how many of its runs failed."""

    by_seed: Mapping[int, float]
    resolution: float = 0.0
    failed: int = 0


def _judged(study: Study, measure: Measure, blocks: Blocks, folder: Path, planned: int) -> Measured:
    """A measurement that can be compared with the paper's; raises InputError where there is nothing to compare."""

    def of(cell: Cell) -> Values:
        stage = study.stage(cell.stage)
        if stage.step is not None:
            return _of_results(read_results(study, stage, folder), cell.metric)
        assert cell.method is not None
        runs = wanted_runs(study, stage.name, cell.method, cell.setting, folder) if blocks[stage.name] else None
        phase = cell.phase or ("refit" if wants_refit(study.config(stage)) else None)
        return values_of(cell.model_copy(update={"phase": phase}), blocks[stage.name], runs)

    cells = {id(cell): of(cell) for cell in measure.cells}

    def difference(one: Cell, other: Cell | None) -> Mapping[int, float]:
        values = cells[id(one)].by_seed
        return values if other is None else _minus(_is_one(study, one), values, _is_one(study, other), cells[id(other)].by_seed)

    values, wholes = difference(measure.of, measure.minus), None
    if (over := measure.over) is not None:
        values, wholes = _on_same_seeds(
            _is_one(study, measure.of, measure.minus), values, _is_one(study, over.of, over.minus), difference(over.of, over.minus)
        )
        _refuse_no_gain(wholes, lower_is_better(over.of.metric))
    failed = sum(one.failed for one in cells.values())
    reasons = [measure.reason, f"{number_of(failed, 'run')} failed, such as those whose loss became NaN or infinite" if failed else ""]
    return Measured(
        measure,
        values,
        cells[id(measure.of)].resolution,
        planned,
        "; ".join(filter(None, reasons)),
        wholes,
        single=len({_is_one(study, cell) for cell in measure.cells}) == 2,
        failed=failed,
    )


def _refuse_no_gain(wholes: Mapping[int, float], lower: bool) -> None:
    """Raise InputError where what something is a share of is no gain, or not clearly one."""
    values = [-value if lower else value for value in wholes.values()]
    low, high = mean_interval(values) if len(values) > 1 else (values[0], values[0])
    if low <= 0:
        between = f"; 95 % interval [{low:.2f}, {high:.2f}]" if len(values) > 1 else ""
        raise InputError(f"the difference that it is a share of is not clearly a gain ({float(np.mean(values)):.2f}{between})")


def _is_one(study: Study, *cells: Cell | None) -> bool:
    """Whether cells are all a single value that stands beside every seed: of the teacher, or of a step with one result."""

    def one(cell: Cell) -> bool:
        step = study.stage(cell.stage).step
        return cell.method == TEACHER if step is None else step.single

    return all(cell is None or one(cell) for cell in cells)


def _minus(one_is_single: bool, values: Mapping[int, float], other_is_single: bool, others: Mapping[int, float]) -> dict[int, float]:
    """Differences seed by seed, or to a single value; raises InputError where no seed is finished on both sides."""
    first, second = _on_same_seeds(one_is_single, values, other_is_single, others)
    return {seed: value - second[seed] for seed, value in first.items()}


def _on_same_seeds(
    one_is_single: bool, one: Mapping[int, float], other_is_single: bool, other: Mapping[int, float]
) -> tuple[dict[int, float], dict[int, float]]:
    """Both sides on the seeds that both have, a single value repeated; raises InputError where there are none."""
    if one_is_single and not other_is_single:
        one = dict.fromkeys(other, next(iter(one.values())))
    elif other_is_single and not one_is_single:
        other = dict.fromkeys(one, next(iter(other.values())))
    seeds = [seed for seed in one if seed in other]
    if not seeds:
        raise InputError("no seed is finished on both sides")
    return {seed: one[seed] for seed in seeds}, {seed: other[seed] for seed in seeds}


def values_of(cell: Cell, blocks: Sequence[Block], wanted: Wanted | None) -> Values:
    """A cell's values; raises InputError where there are none, or those of more than one setting.

    wanted: which runs of the cell's method are meant; None for the chosen ones.
    """
    phase = cell.phase
    if phase == "refit" and blocks and phase not in {block.table_key.phase for block in blocks}:
        raise InputError(f"{cell.method}: the refit of its stage has not begun")
    method = None if cell.method == TEACHER else cell.method
    matching = [block for block in blocks if cell.pair in (None, block.table_key.pair) and phase in (None, block.table_key.phase)]
    if method is None:
        return _of_teacher(cell, matching)
    settings = list(settings_in(matching, method, cell.pair, wanted, phase))
    if len(settings) != 1:
        problem = "no finished run" if not settings else f"{len(settings)} settings or pairs match; name pair or setting"
        raise InputError(f"{cell.method}{f' of {cell.pair}' if cell.pair else ''}: {problem}")
    block, records = settings[0]
    values = {record.run.seed: value_of(record.result or {}, cell.metric) for record in records}
    failed = sum(record.state == "failed" and record.setting_key == records[0].setting_key for record in block.records)
    return Values(values, resolution_of((record.result or {} for record in records), cell.metric), failed)


def _of_teacher(cell: Cell, blocks: Iterable[Block]) -> Values:
    """The teacher's value; it is one training."""
    records = [record for block in blocks for record in block.records if (record.result or {}).get("teacher")]
    values = {value_of({"last": {"test": (record.result or {})["teacher"]["test"]}}, cell.metric) for record in records}
    if len(values) != 1:
        raise InputError(f"teacher: {'no finished run' if not values else f'{len(values)} teachers match; name a pair'}")
    return Values({0: values.pop()}, resolution_of((record.result or {} for record in records), cell.metric))


def _of_results(results: Mapping[int, Mapping[str, Any]], metric: str) -> Values:
    """A step's values."""
    return Values({seed: value_of(result, metric) for seed, result in results.items()}, resolution_of(results.values(), metric))
