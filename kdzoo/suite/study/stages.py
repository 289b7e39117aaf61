"""The benches of a study, one after the other: what a stage takes from earlier ones is looked up in their folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from kdzoo.contract.methods import REGISTRY
from kdzoo.errors import InputError, collect_problems, unknown
from kdzoo.runs.spec import ObjectiveSpec
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.starts import read_starts
from kdzoo.suite.report.bench import BenchRecords, read_bench
from kdzoo.suite.report.blocks import Block
from kdzoo.suite.report.records import Record
from kdzoo.suite.report.settings import setting_of
from kdzoo.suite.study.steps.step import network_file
from kdzoo.suite.study.study import Study, StudyStage
from kdzoo.suite.study.which import Of, Which


def stage_config(study: Study, stage: StudyStage, folder: Path, seeds: int | None, more: Mapping[str, Any]) -> BenchConfig:
    """The bench of a stage in a study's folder, with what it takes from the stages before it, which have to be done.

    Raises InputError where they are not, or where they do not have what is asked for.
    """
    problems: list[str] = []
    keys: dict[str, Any] = {}
    methods: list[str] = []
    grid: dict[str, list[Any]] = {}
    if stage.teacher is not None:
        with collect_problems(problems):
            keys["teacher"] = _teacher(study, stage.teacher, folder)
    for which in stage.settings:
        with collect_problems(problems):
            text, axes = as_request(runs_of(study, which, which.seeds, folder)[0].run.objective)
            methods.append(text)
            differing = [key for key, values in axes.items() if grid.get(key, values) != values]
            problems += [
                f"settings: {which.method} has {key} = {axes[key][0]!r}, another method that is taken over {grid[key][0]!r}; a bench has "
                f"one value of it for all sums: take them over in two stages"
                for key in differing
            ]
            grid |= axes
    if problems:
        raise InputError(*[f"stage {stage.name}: {problem}" for problem in problems])
    config = study.config(stage, seeds, results=str(folder), **more, **keys)
    update: dict[str, Any] = {}
    if methods:
        request = config.methods if "methods" in stage.bench else ()
        update = {"methods": (*request, *methods), "grid": {**config.grid, **{key: tuple(values) for key, values in grid.items()}}}
    return config.model_copy(update=update)


def planned_bench(place: Path) -> BenchRecords:
    """The runs of a stage's folder that its last start has planned: those of another recipe, or of more seeds, may lie beside them.

    All of them where the folder does not say how it was made.
    """
    bench = read_bench(place)
    with suppress(InputError):  # a damaged bench.json is told, and made again, by the next start
        starts = read_starts(place)
        return bench.only(starts[-1].runs) if starts else bench
    return bench


def is_begun(study: Study, of: Of, folder: Path) -> bool:
    """Whether an earlier stage has something to take: runs, or the results of a step."""
    place = folder / of.stage
    return (place / "runs").is_dir() if study.stage(of.stage).step is None else any(place.glob("seed-*.json"))


def _teacher(study: Study, which: Which, folder: Path) -> str:
    """The teacher of a stage as a bench asks for it: ids of runs, or the file of a step's network; InputError where it is not there."""
    if study.stage(which.stage).step is None:
        return "+".join(record.id for record in runs_of(study, which, which.seeds, folder))
    (seed,) = which.seeds
    if not (file := network_file(folder / which.stage, seed)).is_file():
        raise InputError(f"stage {which.stage} has not been done for seed {seed}: no {file}")
    return str(file)


def as_request(objective: ObjectiveSpec) -> tuple[str, dict[str, list[Any]]]:
    """A resolved objective as a bench asks for it: the exact sum, and its hyper-parameters as axes of one value.

    A pretrain stage that has no term of its own in the sum stands in it without a factor.
    """
    terms = [f"{objective.task!r}*ce", *(f"{term.coefficient!r}*{term.method}" for term in objective.terms)]
    axes = {f"{term.method}.{key}": [value] for term in objective.terms for key, value in term.hyperparameters.items()}
    if (first := objective.first) is not None:
        if first.then is not None:
            terms.append(first.owner)
        shared = REGISTRY.get(first.owner).model_fields
        axes |= {f"{first.owner}.{key}": [value] for key, value in first.term.hyperparameters.items() if key in shared}
    return "+".join(terms), axes


def runs_of(study: Study, of: Of, seeds: Sequence[int], folder: Path) -> tuple[Record, ...]:
    """The finished runs of an earlier stage, in the order of these seeds; raises InputError where some are missing."""
    finished = finished_runs_of(study, of, folder)
    missing = [str(seed) for seed in seeds if seed not in finished]
    if missing:
        known = ", ".join(map(str, sorted(finished))) or "none"
        raise InputError(f"stage {of.stage} has no finished run of {of.method} with seed {', '.join(missing)}; finished seeds: {known}")
    return tuple(finished[seed] for seed in seeds)


def finished_runs_of(study: Study, of: Of, folder: Path) -> dict[int, Record]:
    """The finished runs of an earlier stage by seed; raises InputError where it has not been trained, or where several settings match."""
    if not (folder / of.stage / "runs").is_dir():
        raise InputError(f"stage {of.stage} has not been trained")
    blocks = planned_bench(folder / of.stage).blocks
    wanted = wanted_runs(study, of.stage, of.method, of.setting, folder)
    matches = [records for _, records in settings_in(blocks, of.method, of.pair, wanted, "sweep")]
    if len(matches) > 1:
        raise InputError(f"stage {of.stage}: {len(matches)} settings or pairs of {of.method} match; name the pair or more of the setting")
    return {record.run.seed: record for records in matches for record in records}


Wanted = Callable[[Record], bool]


def wanted_runs(study: Study, stage: str, method: str, setting: Mapping[str, Any], folder: Path) -> Wanted | None:
    """Which runs of a method are meant: those with a setting, else those at the setting that the stage took from an earlier one.

    None for those that the stage itself chose. Plain KD and other methods of the stage may stand at published values beside
    what was taken over, so the method alone would not tell them apart.
    """
    if setting:
        return lambda record: has_setting(record, setting)
    for which in study.stage(stage).settings:
        if which.method == method:
            objective = runs_of(study, which, which.seeds, folder)[0].run.objective
            return lambda record: _same_values(record.run.objective, objective)
    return None


def _same_values(one: ObjectiveSpec, other: ObjectiveSpec) -> bool:
    """Whether two objectives have the same terms, hyper-parameters and coefficients, of whatever version."""

    def values(objective: ObjectiveSpec) -> dict[str, Any]:
        return {term.method: (term.hyperparameters, term.coefficient) for term in objective.terms}

    ours, theirs = values(one), values(other)
    return (
        ours.keys() == theirs.keys()
        and _equal(one.task, other.task)
        and all(ours[name][0] == theirs[name][0] and _equal(ours[name][1], theirs[name][1]) for name in ours)
        and _first_values(one) == _first_values(other)
    )


def _first_values(objective: ObjectiveSpec) -> tuple[Any, ...]:
    """The method and hyper-parameters of a pretrain stage; its epochs follow from the recipe."""
    first = objective.first
    return () if first is None else (first.owner, first.term.method, first.term.hyperparameters)


def settings_in(
    blocks: Iterable[Block], method: str, pair: str | None, wanted: Wanted | None, phase: str | None
) -> Iterator[tuple[Block, tuple[Record, ...]]]:
    """The finished runs of every setting of a method that matches: of those wanted, or of the chosen ones."""
    for block in blocks:
        if pair not in (None, block.table_key.pair) or phase not in (None, block.table_key.phase):
            continue
        if wanted is None:
            yield from ((block, standing.done) for standing in block.standings if standing.record.method == method and standing.done)
            continue
        groups: dict[str, list[Record]] = {}
        for record in block.records:
            if record.method == method and record.result is not None and wanted(record):
                groups.setdefault(record.setting_key, []).append(record)
        yield from ((block, tuple(records)) for records in groups.values())


def has_setting(record: Record, wanted: Mapping[str, Any]) -> bool:
    """Whether a run was trained at these values; raises InputError with the nearest name for one that its method lacks."""
    setting = setting_of(record.run.objective, record.about.get("methods", {}), record.about.get("doses", {}))
    values: dict[str, Any] = {key: getattr(setting, key) for key in ("temperature", "alpha", "weight", "dose", "coefficient")}
    values["task"] = record.run.objective.task
    for term in record.run.objective.terms:
        values |= {f"{term.method}.{key}": value for key, value in term.hyperparameters.items()}
        if len(record.run.objective.terms) == 1:
            values |= {key: value for key, value in term.hyperparameters.items() if key not in values or values[key] is None}
    if strangers := [key for key in wanted if key not in values]:
        raise InputError(*[unknown(f"setting of {record.method}", key, values) for key in strangers])
    return all(_equal(values[key], value) for key, value in wanted.items())


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= 1e-9 * max(abs(one), abs(other))
    return bool(one == other)
