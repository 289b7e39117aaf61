"""A study: a claim of the literature, the benches that test it, and the numbers they have to reach. Free of torch.

`configs/papers/*.yaml` holds those that are shipped; `kdzoo reproduce` runs them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from kdzoo.contract.methods import REGISTRY
from kdzoo.data.known import DATA
from kdzoo.errors import InputError, noting, unknown
from kdzoo.files import CONFIGS
from kdzoo.runs.spec import Count, Number, Spec, parse
from kdzoo.suite.plan.config import CONTROLS, KD, NONE, BenchConfig, bench_config, held_out_share, read_yaml, refit_seeds, wants_refit
from kdzoo.suite.plan.methods import parse_request
from kdzoo.suite.plan.race import Race
from kdzoo.suite.report.published import Published, published_in
from kdzoo.suite.study.metrics import METRICS, OF_A_CLASS
from kdzoo.suite.study.steps import StepKeys
from kdzoo.suite.study.steps.step import Step
from kdzoo.suite.study.surface import AXES, Surface
from kdzoo.suite.study.which import Of, Which, as_tuple

FOLDER = CONFIGS / "papers"
SETTING_KEYS = ("temperature", "alpha", "weight", "dose", "coefficient", "task")
"""of any method's setting, beside its hyper-parameters"""
TEACHER = "teacher"
"""as the method of a measurement: the teacher itself"""
OWN_KEYS = ("name", "results", "device", "jobs", "threads", "wandb", "checkpoint_seconds")
"""of a bench, what a study sets itself or the command line says"""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Stage(StepKeys):
    """One bench of a study, in the keys of `kdzoo bench --config`, or a step: what is done with finished runs of an earlier stage.

    teacher: runs of an earlier stage whose students teach this one; several seeds are an ensemble. settings: methods
    that are trained at the setting that an earlier stage chose for them. A step is named by its kind, as in
    `calibrate: {of: {...}, ...}` (`kdzoo.suite.study.steps`). race: instead of either, more seeds for some methods of an earlier
    stage, in that stage's folder.
    """

    name: Name
    bench: dict[str, Any] = {}
    teacher: Which | None = None
    settings: Annotated[tuple[Which, ...], BeforeValidator(as_tuple)] = ()
    race: Race | None = None

    @model_validator(mode="after")
    def _a_bench_or_a_step(self) -> Self:
        beside = [key for key in ("bench", "teacher", "settings", "race") if key in self.model_fields_set]
        if self.kind is not None and beside:
            raise ValueError(f"expected a bench or a step, got {' and '.join([*beside, self.kind])}")
        return self

    @property
    def before(self) -> tuple[Of, ...]:
        """What it takes from earlier stages."""
        return (*((self.teacher,) if self.teacher else ()), *self.settings, *((self.step.of,) if self.step else ()))


class Cell(Spec):
    """A number of a stage, seed by seed: a metric on the test set after the last epoch.

    method: of a bench, a method, `none` (the student alone) or `teacher`; a step has none. metric: top1, error_rate, errors
    (images) and so on; `errors.3` and `recall.3` of class 3; or the place of a number in a run's result.json, or in a
    step's result, with dots, such as `best.test.top1`. phase: `refit` where there is one unless given.
    """

    stage: str | None = None
    method: str | None = None
    pair: str | None = None
    setting: dict[str, JsonValue] = {}
    phase: Literal["sweep", "refit"] | None = None
    metric: str = "top1"


class Difference(Spec):
    """One cell minus another."""

    of: Cell
    minus: Cell


class Measure(Spec):
    """What is compared with a number of the paper: a cell, minus another one, perhaps as a share of a further difference.

    paper, tolerance: the published number and how far the mean may lie from it in either direction. between: instead of
    them, the lowest and the highest mean that bear the claim out; null for no bound. Accuracies, their differences and
    shares are in per cent. reason: a known cause of a number that is not reached, or is reached too easily.
    """

    name: str
    of: Cell
    minus: Cell | None = None
    over: Difference | None = None
    paper: Number | None = None
    tolerance: Annotated[Number, Field(ge=0)] | None = None
    between: Annotated[tuple[Number | None, Number | None], BeforeValidator(as_tuple)] | None = None
    reason: str = ""

    @model_validator(mode="after")
    def _judged(self) -> Self:
        if (self.paper is None) != (self.tolerance is None):
            raise ValueError("paper and tolerance: expected both or neither")
        if (self.paper is None) == (self.between is None):
            raise ValueError("expected paper with tolerance, or between")
        if self.between is not None and self.between == (None, None):
            raise ValueError("between: expected a lowest or a highest number")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest mean that reach it."""
        if self.paper is not None and self.tolerance is not None:
            return self.paper - self.tolerance, self.paper + self.tolerance
        low, high = self.between or (None, None)
        return -math.inf if low is None else low, math.inf if high is None else high

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in (self.of, self.minus, *((self.over.of, self.over.minus) if self.over else ())) if cell is not None)


class PublishedTable(Spec):
    """A measurement for every number of a published table (`configs/published`) whose pair and method a stage trains.

    instead: what the stage trains in the place of a method of the table, such as a variant of it. settings: by method of the
    table, its setting where the stage tries several. A number of the best epoch on the test set is compared with ours
    (`oracle.test.top1`) where the stage records it.
    """

    table: str
    stage: str
    tolerance: Annotated[Number, Field(ge=0)]
    instead: dict[str, str] = {}
    settings: dict[str, dict[str, JsonValue]] = {}
    reason: str = ""


class Time(Spec):
    """How long a study takes, and on which machine. measured: whether it was trained there, or only some of its steps."""

    hours: Annotated[Number, Field(gt=0)]
    machine: str
    measured: bool = True


class Study(Spec):
    """What a study's file holds.

    tries: what was tried before the recipe was settled, and on which images; the test set is evaluated for the settled
    recipe alone. seeds: how many each stage has unless its bench says otherwise. time: measured, else it is estimated.
    """

    title: str
    claim: str
    source: str
    tries: Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
    seeds: Count = 5
    stages: Annotated[tuple[Stage, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    measures: Annotated[tuple[Measure, ...], BeforeValidator(as_tuple)] = ()
    published: Annotated[tuple[PublishedTable, ...], BeforeValidator(as_tuple)] = ()
    surfaces: Annotated[tuple[Surface, ...], BeforeValidator(as_tuple)] = ()
    time: Time | None = None

    def stage(self, name: str | None) -> Stage:
        """A stage by name; the first where none is named."""
        return next(stage for stage in self.stages if name in (None, stage.name))

    def bench_of(self, stage: Stage) -> Stage:
        """The stage whose bench and folder a stage has: of a race the one that it trains more seeds of, else the stage itself."""
        return stage if stage.race is None else self.stage(stage.race.stage)

    def race_of(self, name: str | None) -> Race | None:
        """The race that trains more seeds of a stage; None where there is none."""
        stage = self.stage(name).name
        return next((other.race for other in self.stages if other.race is not None and other.race.stage == stage), None)

    def measured(self) -> tuple[Measure, ...]:
        """Every measurement, those of published tables written out."""
        return (*self.measures, *(measure for table in self.published for measure in self._of_table(table)))

    def _of_table(self, table: PublishedTable) -> list[Measure]:
        bench, methods = self.config(self.stage(table.stage)), _trained(self, table.stage)
        there = [row for row in published_in(table.table) if row.pair in bench.pairs and row.data == bench.data]
        return [_measure(row, table, bench) for row in there if table.instead.get(row.method, row.method) in methods]

    def teacher_words(self, which: Which) -> str:
        """A teacher that an earlier stage makes, in words."""
        source = next((stage for stage in self.stages if stage.name == which.stage), None)
        return str(which) if source is None or source.step is None else f"the network of stage {which.stage}"

    @property
    def benches(self) -> tuple[Stage, ...]:
        """The stages that have a bench, without the steps between them and races, which train more seeds of a bench."""
        return tuple(stage for stage in self.stages if stage.step is None and stage.race is None)

    def config(self, stage: Stage, seeds: int | None = None, **more: Any) -> BenchConfig:
        """The bench of a stage as far as it does not hang on earlier stages; raises InputError with its faults.

        A race has the bench of the stage that it trains more seeds of. seeds: how many instead of the study's; a stage whose file
        lists its seeds, such as an ensemble's, keeps them. more: further keys, which stand above those of the file.
        """
        stage = self.bench_of(stage)
        bench = {"seeds": self.seeds, "methods": (KD,), **stage.bench}
        if "plugin" in bench:
            bench["plugin"] = _beside(bench["plugin"])
        if seeds is not None and not isinstance(bench["seeds"], list | tuple):
            bench |= {"seeds": seeds, **({"refit_seeds": seeds} if "refit_seeds" in bench else {})}
            bench.pop("control_seeds", None)
        teacher = {} if stage.teacher is None else {"teacher": self.teacher_words(stage.teacher)}  # for a network that is not there yet
        try:
            return bench_config({**teacher, **bench, "name": stage.name, **more}, None)
        except InputError as error:
            raise InputError(*[f"stages.{stage.name}.bench.{problem}" for problem in error.problems]) from error


def _beside(plugins: Any) -> Any:
    """Files of plugins by name, those that are shipped with the studies by their path."""
    listed = [plugins] if isinstance(plugins, str) else plugins
    if not isinstance(listed, list | tuple):
        return plugins  # which its bench refuses
    return [
        str(FOLDER / name) if isinstance(name, str) and not Path(name).exists() and (FOLDER / name).is_file() else name for name in listed
    ]


def _measure(row: Published, table: PublishedTable, bench: BenchConfig) -> Measure:
    return Measure(
        name=f"{row.pair}: {row.printed}",
        of=Cell(
            stage=table.stage,
            method=table.instead.get(row.method, row.method),
            pair=row.pair,
            setting=table.settings.get(row.method, {}),
            metric="oracle.test.top1" if row.epoch == "best" and bench.oracle else "top1",
        ),
        paper=row.top1,
        tolerance=table.tolerance,
        reason=table.reason,
    )


def read_study(file: Path) -> Study:
    """A study from its file; raises InputError with all of its faults."""
    try:
        found = parse(Study, read_yaml(file), "")
    except InputError as error:
        raise InputError(*[f"study {file.stem}: {problem}" for problem in error.problems]) from error
    problems = [*_wrong_stages(found), *_wrong_races(found)]
    if problems and any(stage.race is not None for stage in found.stages):  # what else is wrong is told of the other stages
        found = found.model_copy(update={"stages": tuple(stage for stage in found.stages if stage.race is None)})
    problems += [*wrong_seeds(found), *_wrong_measures(found), *_wrong_surfaces(found)]
    for stage in found.benches:
        with noting(problems):
            found.config(stage)
    if not found.measures and not found.published and not found.surfaces:
        problems.append("measures: missing; expected measures, published with the name of a table, or surfaces")
    if not problems:
        for table in found.published:
            if not found._of_table(table):
                problems.append(f"published: stage {table.stage} trains no pair and method of {table.table}")
    if problems:
        raise InputError(*[f"study {file.stem}: {problem}" for problem in dict.fromkeys(problems)])
    return found


def _wrong_stages(study: Study) -> list[str]:
    """Names that stand twice, keys that a study sets itself, and stages that are no earlier ones."""
    problems: list[str] = []
    earlier: list[str] = []
    for stage in study.stages:
        if stage.name in earlier:
            problems.append(f"stages.{stage.name}: stands there twice")
        strangers = [of.stage for of in stage.before if of.stage not in earlier]
        problems += [f"stages.{stage.name}: {unknown('earlier stage', name, earlier)}" for name in strangers]
        problems += [f"stages.{stage.name}: {text}" for of in stage.before if of.stage in earlier for text in _wrong_runs(study, of, stage)]
        own = [key for key in stage.bench if key in OWN_KEYS]
        problems += [f"stages.{stage.name}.bench.{key}: not a key of a study; the command line or the stage's name says it" for key in own]
        if stage.teacher and "teacher" in stage.bench:
            problems.append(f"stages.{stage.name}.bench.teacher: given twice, here and in teacher")
        earlier.append(stage.name)
    return problems


def _wrong_races(study: Study) -> list[str]:
    """What a race asks for that the stage it names does not have."""
    problems: list[str] = []
    names = [stage.name for stage in study.stages]
    raced: list[str] = []
    for at, stage in enumerate(study.stages):
        race = stage.race
        if race is None:
            continue
        where = f"stages.{stage.name}.race"
        own = [key for key in ("bench", "teacher", "settings") if getattr(stage, key)]
        problems += [f"stages.{stage.name}.{key}: a race has none; it trains more seeds of stage {race.stage}" for key in own]
        if race.stage not in names[:at]:
            problems.append(f"{where}: {unknown('earlier stage', race.stage, names[:at])}")
            continue
        if study.stage(race.stage).race is not None:
            problems.append(f"{where}: stage {race.stage} is a race itself; name the stage that it trains more seeds of")
            continue
        if race.stage in raced:
            problems.append(f"{where}: another race trains more seeds of stage {race.stage} already")
        raced.append(race.stage)
        with suppress(InputError):  # told with the faults of its bench
            problems += [f"{where}: {fault}" for fault in _faults_of_race(study, race)]
    return problems


def _faults_of_race(study: Study, race: Race) -> list[str]:
    config = study.config(study.stage(race.stage))
    if not wants_refit(config) or not held_out_share(config):
        return [f"stage {race.stage} trains no chosen settings again with fresh seeds; expected refit: true and a val_fraction there"]
    faults: list[str] = []
    takes, there = race.best + race.widest, [method for method in _trained(study, race.stage) if method not in CONTROLS]
    if takes > len(there):
        faults.append(f"best and widest take {takes} methods, but stage {race.stage} trains {len(there)} beside the controls")
    for key, method in (("seeds", ""), ("control_seeds", KD)):
        number, trained = race.seeds_for(method), len(refit_seeds(method, config))
        if number < trained:
            faults.append(f"{key}: expected at least the {trained} that stage {race.stage} trains, got {number}")
    return faults


def _wrong_runs(study: Study, of: Of, stage: Stage) -> list[str]:
    """What keeps a stage from taking runs of an earlier one."""
    source = study.stage(of.stage)
    if source.race is not None:
        return [f"stage {of.stage} is a race, whose runs stand in stage {source.race.stage}; name that one"]
    if source.step is not None and of is stage.teacher:
        return _wrong_network(source, stage.teacher)
    if source.step is not None:
        return [f"stage {of.stage} is a step ({source.kind}) and has no runs; expected a stage that trains"]
    methods = _trained(study, of.stage)
    if methods and of.method not in methods:
        return [unknown(f"method of stage {of.stage}", of.method, methods)]
    reads_networks = stage.step is not None or of is stage.teacher
    if methods and reads_networks and "student" not in study.config(source).keep:
        return [f"stage {of.stage} keeps no students, which {'a step reads' if stage.step else 'teach'}; add student to its keep"]
    return []


def _wrong_network(source: Stage, teacher: Which) -> list[str]:
    """What keeps the network of a step from teaching a stage."""
    assert source.step is not None
    if not source.step.teaches:
        return [f"stage {source.name} is a step ({source.kind}) that makes no network; expected a stage that trains"]
    beside = [key for key in ("method", "pair", "setting") if key in teacher.model_fields_set]
    problems = [f"stage {source.name} is a step ({source.kind}), whose network has no {' or '.join(beside)}"] if beside else []
    if len(teacher.seeds) > 1:
        problems.append(f"stage {source.name} is a step ({source.kind}): expected one seed, got {', '.join(map(str, teacher.seeds))}")
    return problems


def wrong_seeds(study: Study, seeds: int | None = None) -> list[str]:
    """Runs that stages take from earlier ones with seeds that those do not train, where each stage has `seeds` of them or its own."""
    problems: list[str] = []
    benches: dict[str, BenchConfig] = {}
    results: dict[str, tuple[int, ...]] = {}
    for stage in study.stages:
        for of in stage.before:
            asked = getattr(of, "seeds", None) or ()
            trained = results.get(of.stage, benches[of.stage].seeds_for(of.method) if of.stage in benches else asked)
            if missing := [str(seed) for seed in asked if seed not in trained]:
                word = "seed" if len(missing) == 1 else "seeds"
                known = ", ".join(map(str, trained))
                act = "is not done for" if of.stage in results else "does not train"
                problems.append(f"stages.{stage.name}: stage {of.stage} {act} {word} {', '.join(missing)}; its seeds: {known}")
        if stage.step is not None and (bench := benches.get(stage.step.of.stage)) is not None:
            of_step = step_seeds(study, stage.step, seeds)
            problems += [f"stages.{stage.name}.{stage.kind}.{problem}" for problem in stage.step.problems(bench, of_step)]
            results[stage.name] = tuple(stage.step.groups(of_step))
        with suppress(InputError):  # told with the faults of its bench
            if stage.step is None and stage.race is None:
                benches[stage.name] = study.config(stage, seeds)
    return problems


def step_seeds(study: Study, step: Step, seeds: int | None = None) -> tuple[int, ...]:
    """The seeds of the runs that a step reads: those that it names, else all that their stage trains.

    seeds: how many each stage has instead of the study's.
    """
    return step.of.seeds or study.config(study.stage(step.of.stage), seeds).seeds_for(step.of.method)


def _wrong_measures(study: Study) -> list[str]:
    names = [stage.name for stage in study.stages]
    problems = [f"measures: {name!r} stands there twice" for name in _twice(measure.name for measure in study.measures)]
    for measure in study.measures:
        where = f"measures, {measure.name!r}"
        for cell in measure.cells:
            if cell.stage is not None and cell.stage not in names:
                problems.append(f"{where}: {unknown('stage', cell.stage, names)}")
            elif (race := study.stage(cell.stage).race) is not None:
                problems.append(f"{where}: the runs of {study.stage(cell.stage).name} stand in stage {race.stage}; name that one")
            else:
                problems += [f"{where}: {problem}" for problem in _wrong_method(study, cell)]
                problems += [f"{where}: {problem}" for problem in _wrong_setting(study, cell)]
            problems += [f"{where}: {problem}" for problem in _wrong_metric(study, cell)]
    for table in study.published:
        if table.stage not in names:
            problems.append(f"published: {unknown('stage', table.stage, names)}")
        elif methods := _trained(study, table.stage):
            strangers = [name for name in table.instead.values() if name not in methods]
            problems += [f"published.instead: {unknown(f'method of stage {table.stage}', name, methods)}" for name in strangers]
        with noting(problems):
            published_in(table.table)
    return problems


def _wrong_setting(study: Study, cell: Cell) -> list[str]:
    """Keys of a cell's setting that its method does not have, and a phase that its stage does not train."""
    stage = study.stage(cell.stage)
    if stage.step is not None or cell.method in (None, TEACHER) or cell.method not in _trained(study, cell.stage):
        return []
    problems = []
    if cell.phase == "refit" and not wants_refit(study.config(stage)):
        problems.append(f"phase: stage {stage.name} trains no chosen settings again")
    if own := _fields(cell.method):  # else only a plugin knows it, or it has none
        known = dict.fromkeys([*SETTING_KEYS, *own])
        problems += [f"setting: {unknown('key', key, known)}" for key in cell.setting if key not in known]
    return problems


def _wrong_metric(study: Study, cell: Cell) -> list[str]:
    """What is wrong with the metric of a cell: a name that no run has, or a class that its data do not have."""
    name, _, label = cell.metric.partition(".")
    if not label:
        return [] if cell.metric in METRICS else [unknown("metric", cell.metric, METRICS)]
    if not label.isdecimal() or cell.stage not in (None, *(stage.name for stage in study.stages)):
        return []  # the place of a number in a result; or of a stage whose name is told to be wrong
    if name not in OF_A_CLASS:
        return [] if study.stage(cell.stage).step is not None else [unknown("metric of a class", name, OF_A_CLASS)]
    bench = _bench_below(study, cell.stage)
    known = None if bench is None else DATA.find(bench.data)
    if known is not None and known.classes is not None and int(label) >= known.classes:
        return [f"metric {cell.metric}: expected a class from 0 to {known.classes - 1}"]
    return []


def _bench_below(study: Study, name: str | None) -> BenchConfig | None:
    """The bench of a stage, or that of the runs which a step reads; None where it has faults of its own."""
    try:
        stage = study.stage(name)
        return study.config(stage if stage.step is None else study.stage(stage.step.of.stage))
    except InputError:
        return None


def _wrong_surfaces(study: Study) -> list[str]:
    names = [stage.name for stage in study.benches]
    problems = [f"surfaces: {name!r} stands there twice" for name in _twice(surface.name for surface in study.surfaces)]
    for surface in study.surfaces:
        where = f"surfaces, {surface.name!r}"
        if "." not in surface.metric and surface.metric not in METRICS:
            problems.append(f"{where}: {unknown('metric', surface.metric, METRICS)}")
        if surface.stage is not None and surface.stage not in names:
            problems.append(f"{where}: {unknown('stage that trains', surface.stage, names)}")
        elif (methods := _trained(study, surface.stage)) and surface.method not in methods:
            problems.append(f"{where}: {unknown('method', surface.method, methods)}")
        else:
            axes = [*AXES, *_fields(surface.method)]
            problems += [f"{where}: {unknown('axis', axis, axes)}" for axis in (surface.rows, surface.columns) if axis not in axes]
    return problems


def _fields(method: str) -> list[str]:
    """The hyper-parameters of the methods of a sum, as axes name them; nothing of what only a plugin knows."""
    with REGISTRY.declarations():
        try:
            fields = {name: list(REGISTRY.get(name).model_fields) for name in parse_request(method).terms}
        except InputError:
            return []
    return [text for name, keys in fields.items() for key in keys for text in (key, f"{name}.{key}")]


def _wrong_method(study: Study, cell: Cell) -> list[str]:
    """What is wrong with the method of a cell whose stage there is."""
    stage = study.stage(cell.stage)
    if stage.step is not None:
        beside = [key for key in ("method", "pair", "setting", "phase") if key in cell.model_fields_set]
        return [f"stage {stage.name} is a step ({stage.kind}), whose numbers have no {' or '.join(beside)}"] if beside else []
    if cell.method is None:
        return ["method: missing"]
    methods = _methods(study, cell.stage)
    return [unknown("method", cell.method, methods)] if methods and cell.method not in methods else []


def _methods(study: Study, name: str | None) -> list[str]:
    """What a stage has numbers of: its methods and its teacher; nothing where its bench has faults of its own."""
    trained = _trained(study, name)
    return [TEACHER, *trained] if trained else []


def _trained(study: Study, name: str | None) -> list[str]:
    """The methods that a stage trains, as its tables name them; nothing where its bench has faults of its own."""
    try:
        stage = study.stage(name)
        if stage.step is not None:
            return []
        return list(dict.fromkeys([NONE, KD, *map(_label, study.config(stage).methods), *(which.method for which in stage.settings)]))
    except InputError:
        return []


def _label(text: str) -> str:
    """How tables name a method or a sum of methods; the text itself where only a plugin knows it."""
    with REGISTRY.declarations():
        try:
            return "+".join(parse_request(text).terms) or NONE
        except InputError:
            return text


def _twice(names: Iterable[str]) -> list[str]:
    listed = list(names)
    return [name for name in dict.fromkeys(listed) if listed.count(name) > 1]


@cache
def shipped_studies() -> Mapping[str, Path]:
    """The studies that are shipped, by name."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.yaml"))}


def study_file(name: str) -> Path:
    """The file of a study: a shipped one by its name, or a path; raises InputError with the nearest name."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    if name not in shipped_studies():
        raise InputError(f"{unknown('study', name, shipped_studies())}; or a YAML file")
    return shipped_studies()[name]
