"""What a study came to: every number of the paper beside the measured one, from the folders of its runs alone."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.errors import InputError
from kdzoo.runs.store import write_bytes
from kdzoo.suite.plan.config import CONTROLS, refit_seeds, wants_refit
from kdzoo.suite.plan.outline import outline
from kdzoo.suite.report.blocks import Block, blocks_of
from kdzoo.suite.report.leaderboard import as_csv
from kdzoo.suite.report.stats import beside_single, mean_interval, ratio_interval, sample_sd
from kdzoo.suite.report.tables import markdown_table
from kdzoo.suite.study.metrics import is_count, lower_is_better, resolution_of, value_of
from kdzoo.suite.study.race_table import RaceTable, race_tables, race_words
from kdzoo.suite.study.stages import Wanted, planned_bench, settings_in, wanted_runs
from kdzoo.suite.study.steps.perform import read_results
from kdzoo.suite.study.study import TEACHER, Cell, Measure, Study, step_seeds
from kdzoo.suite.study.surface_table import FILE as SURFACES
from kdzoo.suite.study.surface_table import Drawn, draw_all, surface_lines, surfaces_csv
from kdzoo.text import markdown_text, number_of

TABLE, PAGE = "results.csv", "README.md"
REACHED, BY_MEAN, ABOVE, BELOW = "yes", "yes, by the mean alone", "no: above", "no: below"
OPEN, MISSING = "open: runs failed", "not measured"
ROUNDING = 9
"""decimals to which numbers are compared with bounds"""
COLUMNS = ("measure", "paper", "tolerance", "lowest", "highest", "n", "planned", "mean", "sd", "low", "high", "reached", "reason")

Blocks = Mapping[str, tuple[Block, ...]]


@dataclass(frozen=True)
class Measured:
    """A measurement with its values by seed, in the words and units of the table; why there is none in `reason`.

    resolution: what one test image makes of a value; equal values differ by less than that. wholes: by seed, the difference that
    the values are a share of; a share is the ratio of the two means. single: whether a single training stands beside every
    seed, such as the teacher's. failed: how many runs failed.
    """

    measure: Measure
    values: Mapping[int, float]
    resolution: float
    planned: int
    reason: str
    wholes: Mapping[int, float] | None = None
    single: bool = False
    failed: int = 0

    @property
    def mean(self) -> float:
        if not self.values:
            return math.nan
        mean = float(np.mean(list(self.values.values())))
        return mean if self.wholes is None else 100 * mean / float(np.mean(list(self.wholes.values())))

    @property
    def sd(self) -> float:
        return sample_sd(list(self.values.values())) if self.wholes is None else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        if not self.values:
            return math.nan, math.nan
        values = list(self.values.values())
        if self.wholes is not None:
            low, high = ratio_interval(values, [self.wholes[seed] for seed in self.values])
            return 100 * low, 100 * high
        interval = mean_interval(values, self.resolution)
        return beside_single(interval, len(values)) if self.single else interval

    @property
    def reached(self) -> str:
        """Whether the mean lies within the bounds, and whether its whole 95 % interval does."""
        (lowest, highest), (low, high) = self.measure.bounds, self.interval
        if not self.values:
            return MISSING
        if self.failed:
            return OPEN
        if _exceeds(self.mean, highest):
            return ABOVE
        if _exceeds(lowest, self.mean):
            return BELOW
        inside = not (math.isnan(low) or _exceeds(lowest, low) or _exceeds(high, highest))
        return REACHED if inside else BY_MEAN


def _exceeds(one: float, bound: float) -> bool:
    """Whether a number passes a bound by more than floating point makes: one that is met is not passed."""
    return one > bound and round(one - bound, ROUNDING) > 0


@dataclass(frozen=True)
class Evidence:
    """What a study came to: its numbers and its surfaces."""

    measured: tuple[Measured, ...]
    surfaces: tuple[Drawn, ...] = ()


def measure_all(study: Study, folder: Path) -> tuple[Measured, ...]:
    """Every measurement of a study, as far as its runs are done."""
    blocks: Blocks = {
        stage.name: blocks_of(planned_bench(folder / stage.name)) if (folder / stage.name / "runs").is_dir() else ()
        for stage in study.benches
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
        wanted = wanted_runs(study, stage.name, cell.method, cell.setting, folder) if blocks[stage.name] else None
        phase = cell.phase or ("refit" if wants_refit(study.config(stage)) else None)
        return values_of(cell.model_copy(update={"phase": phase}), blocks[stage.name], wanted)

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
    told = [measure.reason, f"{number_of(failed, 'run')} failed, such as those whose loss became NaN or infinite" if failed else ""]
    return Measured(
        measure,
        values,
        cells[id(measure.of)].resolution,
        planned,
        "; ".join(filter(None, told)),
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
    if phase == "refit" and blocks and phase not in {block.place.phase for block in blocks}:
        raise InputError(f"{cell.method}: the refit of its stage has not begun")
    method = None if cell.method == TEACHER else cell.method
    there = [block for block in blocks if cell.pair in (None, block.place.pair) and phase in (None, block.place.phase)]
    if method is None:
        return _of_teacher(cell, there)
    found = list(settings_in(there, method, cell.pair, wanted, phase))
    if len(found) != 1:
        problem = "no finished run" if not found else f"{len(found)} settings or pairs match; name pair or setting"
        raise InputError(f"{cell.method}{f' of {cell.pair}' if cell.pair else ''}: {problem}")
    block, records = found[0]
    values = {record.run.seed: value_of(record.result or {}, cell.metric) for record in records}
    failed = sum(record.state == "failed" and record.setting_key == records[0].setting_key for record in block.records)
    return Values(values, resolution_of((record.result or {} for record in records), cell.metric), failed)


def _of_teacher(cell: Cell, blocks: Iterable[Block]) -> Values:
    """The teacher's value; it is one training."""
    records = [record for block in blocks for record in block.records if (record.result or {}).get("teacher")]
    found = {value_of({"last": {"test": (record.result or {})["teacher"]["test"]}}, cell.metric) for record in records}
    if len(found) != 1:
        raise InputError(f"teacher: {'no finished run' if not found else f'{len(found)} teachers match; name a pair'}")
    return Values({0: found.pop()}, resolution_of((record.result or {} for record in records), cell.metric))


def _of_results(results: Mapping[int, Mapping[str, Any]], metric: str) -> Values:
    """A step's values."""
    return Values({seed: value_of(result, metric) for seed, result in results.items()}, resolution_of(results.values(), metric))


def evidence_frame(measured: Iterable[Measured]) -> pd.DataFrame:
    """A row a measurement, as numbers."""
    rows = []
    for one in measured:
        lowest, highest = one.measure.bounds
        low, high = one.interval
        rows.append(
            {
                "measure": one.measure.name,
                "paper": one.measure.paper,
                "tolerance": one.measure.tolerance,
                "lowest": None if math.isinf(lowest) else lowest,
                "highest": None if math.isinf(highest) else highest,
                "n": len(one.values),
                "planned": one.planned,
                "mean": one.mean,
                "sd": one.sd,
                "low": low,
                "high": high,
                "reached": one.reached,
                "reason": one.reason or None,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def shown_frame(measured: Iterable[Measured]) -> pd.DataFrame:
    """The same for a reader."""
    rows = [
        {
            "measure": one.measure.name,
            "paper": _expected(one.measure),
            "n": f"{len(one.values)}" if len(one.values) >= one.planned else f"{len(one.values)} of {one.planned}",
            "measured": _number(one.mean, one.measure) + ("" if math.isnan(one.sd) else f" ± {_number(one.sd, one.measure)}"),
            "95 % interval": "" if math.isnan(one.interval[0]) else f"[{', '.join(_number(end, one.measure) for end in one.interval)}]",
            "reached": one.reached,
            "known reason": one.reason,
        }
        for one in measured
    ]
    return pd.DataFrame(rows, dtype=object)


def _expected(measure: Measure) -> str:
    """`74.92 ± 0.6`, or the bounds in words."""
    if measure.paper is not None:
        return f"{measure.paper:g} ± {measure.tolerance:g}"
    low, high = measure.bounds
    if math.isinf(high):
        return f"at least {low:g}"
    return f"at most {high:g}" if math.isinf(low) else f"{low:g} to {high:g}"


def _number(value: float, measure: Measure) -> str:
    """Two decimals, or one where images are counted."""
    counted = is_count(measure.of.metric) and measure.over is None
    return "" if math.isnan(value) else f"{value:.{1 if counted else 2}f}"


def write_evidence(study: Study, given: str, folder: Path) -> Evidence:
    """Write README.md and results.csv, and surfaces.csv where it has surfaces, of a study from its runs alone, byte for byte the same.

    given: what `kdzoo reproduce` was given, a name or a file; the page names the command.
    """
    measured = measure_all(study, folder)
    drawn, races = draw_all(study, folder), race_tables(study, folder)
    frames = [evidence_frame(measured), *(table.frame for table in races if len(table.frame))]
    write_bytes(folder / TABLE, as_csv(frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)))
    if drawn:
        write_bytes(folder / SURFACES, surfaces_csv(drawn))
    notes = [(stage.name, note) for stage in study.benches for note in _notes(folder / stage.name)]
    write_bytes(folder / PAGE, page(study, given, measured, drawn, races, notes).encode())
    return Evidence(measured, drawn)


def _notes(folder: Path) -> tuple[str, ...]:
    """What a bench has to tell of its runs, such as students of two trainings of one teacher."""
    return planned_bench(folder).portable_notes if (folder / "runs").is_dir() else ()


def page(
    study: Study,
    given: str,
    measured: Sequence[Measured],
    drawn: Sequence[Drawn] = (),
    races: Sequence[RaceTable] = (),
    notes: Sequence[tuple[str, str]] = (),
) -> str:
    """The README of a study. notes: what its benches have to tell of their runs, by stage."""
    count = {word: sum(one.reached == word for one in measured) for word in (REACHED, BY_MEAN, ABOVE, BELOW, OPEN, MISSING)}
    told = "; ".join(f"{word} ({number})" for word, number in count.items() if number)
    lines = [f"# {markdown_text(study.title)}", "", f"Claim: {markdown_text(study.claim)} [Source]({study.source}).", ""]
    reached = f" Reached, of {number_of(len(measured), 'number')}: {told}." if measured else ""
    lines += [f"`kdzoo reproduce {shlex.quote(given)}`.{reached}", ""]
    lines += [line for table in races for line in table.lines()]
    lines += [*markdown_table(shown_frame(measured)), "", READ_AS, ""] if measured else []
    for one in drawn:
        lines += [*surface_lines(one), ""]
    lines += [*(f"Note on `{stage}/`: {markdown_text(note)}" for stage, note in notes), ""] if notes else []
    lines += ["## How it was trained", ""]
    lines += [f"- `{stage.name}/`: {_setup(study, stage.name)}" for stage in study.stages]
    lines += ["", "Tried before the recipe was settled: " + ("; ".join(map(markdown_text, study.tries)) or "nothing") + "."]
    return "\n".join(lines) + "\n"


READ_AS = (
    "paper: the published number and the tolerance stated before training, in either direction, or the bounds of the claim. "
    "measured: mean ± sample standard deviation over n seeds, on the test images after the last epoch; accuracies, their differences "
    "and shares are in per cent. 95 % interval: by Student's t; a single training, such as the teacher's, enters with the spread of the "
    "runs that it stands beside; a share is a ratio of means with Fieller's interval. reached: `yes`, the whole interval lies within "
    "the tolerance; `yes, by the mean alone`, the mean does; `no: above` and `no: below`, the mean lies outside; `open: runs failed`, "
    "what is left does not stand for all."
)


def _setup(study: Study, name: str) -> str:
    """A stage's networks, data, methods, seeds and recipe, or what a step does, in words."""
    stage = study.stage(name)
    if stage.race is not None:
        return markdown_text(race_words(stage.race))
    if stage.step is not None:
        return markdown_text(stage.step.words())
    planned = outline(study.config(stage))
    told = "" if planned is None else "; ".join(text for word, text in planned.lines() if word != "bench")
    taken = [f"the teacher is {study.teacher_words(stage.teacher)}"] if stage.teacher else []
    taken += [f"{which.method} at the setting that stage {which.stage} chose" for which in stage.settings]
    return markdown_text("; ".join([told, *taken]))
