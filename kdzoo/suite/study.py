"""A study: a claim of the literature, the benches that test it, and the numbers they have to reach. Free of torch.

`configs/papers/*.yaml` holds those that are shipped; `kdzoo reproduce` runs them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from kdzoo.data.known import DATA
from kdzoo.errors import InputError, noting, unknown
from kdzoo.method import REGISTRY
from kdzoo.models.known import own_networks
from kdzoo.spec import Count, Integer, Number, Spec, parse
from kdzoo.suite.config import CONFIGS, CONTROLS, KD, NONE, BenchConfig, bench_config, read_yaml, refit_seeds, wants_refit
from kdzoo.suite.outline import outline
from kdzoo.suite.published import Published, published_in
from kdzoo.suite.request import parse_request

FOLDER = CONFIGS / "papers"
TEACHER = "teacher"
"""as the method of a measurement: the teacher itself"""
OWN_KEYS = ("name", "results", "device", "jobs", "threads", "wandb", "checkpoint_seconds")
"""of a bench, what a study sets itself or the command line says"""
METRICS = ("top1", "top5", "balanced", "nll", "ece", "agreement", "teacher_kl", "errors")
SPEED = 150e9
"""multiply-accumulates a second of training on two cores of a CPU (results/speed/cpu.md: 147e9 and 205e9)"""
SPEED_OF = "two CPU cores"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _seeds(value: object) -> object:
    return (value,) if isinstance(value, int) and not isinstance(value, bool) else _tuple(value)


class Which(Spec):
    """Runs of an earlier stage: those of a method, of a pair where the stage has several, with these seeds.

    setting: of several tried, the one with these values (`temperature`, `alpha`, `weight`, or a field of the method's);
    without it the one chosen on validation.
    """

    stage: str
    method: str = NONE
    pair: str | None = None
    setting: dict[str, JsonValue] = {}
    seeds: Annotated[tuple[Integer, ...], BeforeValidator(_seeds), Field(min_length=1)] = (0,)

    def __str__(self) -> str:
        return f"{'the student alone' if self.method == NONE else self.method} of stage {self.stage}"


class Race(Spec):
    """Which methods of an earlier stage's refit are trained with more seeds, by a rule that is fixed before training.

    best: how many methods, those with the highest mean test top-1 of the refit. widest: how many of the others, those whose
    95 % interval of the difference to `against` is the widest. Collapsed methods take no part. seeds, control_seeds: how many
    these methods, and the student alone and plain KD, have in the end, those of the refit among them.
    """

    stage: str
    best: Annotated[Integer, Field(ge=0)]
    widest: Annotated[Integer, Field(ge=0)] = 0
    against: Literal["hinton", "none"] = "hinton"
    seeds: Count
    control_seeds: Count | None = None

    @model_validator(mode="after")
    def _takes_some(self) -> Self:
        if self.best + self.widest == 0:
            raise ValueError("expected best or widest to be at least 1")
        if self.control_seeds is not None and self.control_seeds < self.seeds:
            raise ValueError(f"control_seeds: expected at least as many as seeds ({self.seeds}), got {self.control_seeds}")
        return self

    def seeds_for(self, method: str) -> int:
        """How many seeds a method of the race has in the end."""
        return (self.control_seeds or self.seeds) if method in CONTROLS else self.seeds


class Stage(Spec):
    """One bench of a study, in the keys of `kdzoo bench --config`.

    teacher: runs of an earlier stage whose students teach this one; several seeds are an ensemble. settings: methods
    that are trained at the setting that an earlier stage chose for them. race: instead of a bench, more seeds for some
    methods of an earlier stage, in that stage's folder.
    """

    name: Name
    bench: dict[str, Any] = {}
    teacher: Which | None = None
    settings: Annotated[tuple[Which, ...], BeforeValidator(_tuple)] = ()
    race: Race | None = None

    @property
    def before(self) -> tuple[Which, ...]:
        """What it takes from earlier stages."""
        return (*((self.teacher,) if self.teacher else ()), *self.settings)


class Cell(Spec):
    """A number of a stage, seed by seed: a metric on the test set after the last epoch.

    method: a method, `none` (the student alone) or `teacher`. metric: top1, errors (images) and so on, or the place of
    a number in a run's result.json with dots, such as `best.test.top1`. phase: `refit` where there is one unless given.
    """

    stage: str | None = None
    method: str
    pair: str | None = None
    setting: dict[str, JsonValue] = {}
    phase: str | None = None
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
    between: Annotated[tuple[Number | None, Number | None], BeforeValidator(_tuple)] | None = None
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
    """How long a study took, and on which machine."""

    hours: Annotated[Number, Field(gt=0)]
    machine: str


class Study(Spec):
    """What a study's file holds.

    tries: what was tried before the recipe was settled, and on which images; the test set is evaluated for the settled
    recipe alone. seeds: how many each stage has unless its bench says otherwise. time: measured, else it is estimated.
    """

    title: str
    claim: str
    source: str
    tries: Annotated[tuple[str, ...], BeforeValidator(_tuple)]
    seeds: Count = 5
    stages: Annotated[tuple[Stage, ...], BeforeValidator(_tuple), Field(min_length=1)]
    measures: Annotated[tuple[Measure, ...], BeforeValidator(_tuple)] = ()
    published: Annotated[tuple[PublishedTable, ...], BeforeValidator(_tuple)] = ()
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

    def config(self, stage: Stage, seeds: int | None = None, **more: Any) -> BenchConfig:
        """The bench of a stage as far as it does not hang on earlier stages; raises InputError with its faults.

        A race has the bench of the stage that it trains more seeds of. seeds: how many instead of the study's. more: further
        keys, which stand above those of the file.
        """
        stage = self.bench_of(stage)
        bench = {"seeds": self.seeds, "methods": (KD,), **stage.bench}
        if seeds is not None:
            bench |= {"seeds": seeds, **({"refit_seeds": seeds} if "refit_seeds" in bench else {})}
            bench.pop("control_seeds", None)
        if "plugin" in bench:
            bench["plugin"] = _beside(bench["plugin"])
        teacher = {"teacher": str(stage.teacher)} if stage.teacher else {}  # stands for a run that is not there yet
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
    problems += [*wrong_seeds(found), *_wrong_measures(found)]
    for stage in found.stages:
        with noting(problems):
            found.config(stage)
    if not found.measures and not found.published:
        problems.append("measures: missing; expected measures, or published with the name of a table")
    if not problems:
        for table in found.published:
            if not found._of_table(table):
                problems.append(f"published: stage {table.stage} trains no pair and method of {table.table}")
    if problems:
        raise InputError(*[f"study {file.stem}: {problem}" for problem in dict.fromkeys(problems)])
    return found


def _wrong_stages(found: Study) -> list[str]:
    """Names that stand twice, keys that a study sets itself, and stages that are no earlier ones."""
    problems: list[str] = []
    earlier: list[str] = []
    for stage in found.stages:
        if stage.name in earlier:
            problems.append(f"stages.{stage.name}: stands there twice")
        strangers = [which.stage for which in stage.before if which.stage not in earlier]
        problems += [f"stages.{stage.name}: {unknown('earlier stage', name, earlier)}" for name in strangers]
        for which in stage.before:
            if which.stage in earlier and (methods := _trained(found, which.stage)) and which.method not in methods:
                problems.append(f"stages.{stage.name}: {unknown(f'method of stage {which.stage}', which.method, methods)}")
        problems += [
            f"stages.{stage.name}.settings: {which.method} trains in two stages, which an exact sum of one stage cannot repeat; name it "
            f"in the stage's methods"
            for which in stage.settings
            if _has_first_stage(which.method)
        ]
        own = [key for key in stage.bench if key in OWN_KEYS]
        problems += [f"stages.{stage.name}.bench.{key}: not a key of a study; the command line or the stage's name says it" for key in own]
        if stage.teacher and "teacher" in stage.bench:
            problems.append(f"stages.{stage.name}.bench.teacher: given twice, here and in teacher")
        earlier.append(stage.name)
    return problems


def _wrong_races(found: Study) -> list[str]:
    """What a race asks for that the stage it names does not have."""
    problems: list[str] = []
    names = [stage.name for stage in found.stages]
    raced: list[str] = []
    for at, stage in enumerate(found.stages):
        race = stage.race
        if race is None:
            continue
        where = f"stages.{stage.name}.race"
        own = [key for key in ("bench", "teacher", "settings") if getattr(stage, key)]
        problems += [f"stages.{stage.name}.{key}: a race has none; it trains more seeds of stage {race.stage}" for key in own]
        if race.stage not in names[:at]:
            problems.append(f"{where}: {unknown('earlier stage', race.stage, names[:at])}")
            continue
        if found.stage(race.stage).race is not None:
            problems.append(f"{where}: stage {race.stage} is a race itself; name the stage that it trains more seeds of")
            continue
        if race.stage in raced:
            problems.append(f"{where}: another race trains more seeds of stage {race.stage} already")
        raced.append(race.stage)
        with suppress(InputError):  # told with the faults of its bench
            problems += [f"{where}: {fault}" for fault in _faults_of_race(found, race)]
    return problems


def _faults_of_race(found: Study, race: Race) -> list[str]:
    config = found.config(found.stage(race.stage))
    if not wants_refit(config):
        return [f"stage {race.stage} trains no chosen settings again with fresh seeds; expected refit: true and a val_fraction there"]
    faults: list[str] = []
    takes, there = race.best + race.widest, [method for method in _trained(found, race.stage) if method not in CONTROLS]
    if takes > len(there):
        faults.append(f"best and widest take {takes} methods, but stage {race.stage} trains {len(there)} beside the controls")
    for key, method in (("seeds", ""), ("control_seeds", KD)):
        number, trained = race.seeds_for(method), len(refit_seeds(method, config))
        if number < trained:
            faults.append(f"{key}: expected at least the {trained} that stage {race.stage} trains, got {number}")
    return faults


def wrong_seeds(found: Study, seeds: int | None = None) -> list[str]:
    """Runs that stages take from earlier ones with seeds that those do not train, where each stage has `seeds` of them or its own."""
    problems: list[str] = []
    benches: dict[str, BenchConfig] = {}
    for stage in found.stages:
        for which in stage.before:
            trained = benches[which.stage].seeds_for(which.method) if which.stage in benches else which.seeds
            if missing := [str(seed) for seed in which.seeds if seed not in trained]:
                word = "seed" if len(missing) == 1 else "seeds"
                known = ", ".join(map(str, trained))
                problems.append(f"stages.{stage.name}: stage {which.stage} does not train {word} {', '.join(missing)}; its seeds: {known}")
        with suppress(InputError):  # told with the faults of its bench
            benches[stage.name] = found.config(stage, seeds)
    return problems


def _wrong_measures(found: Study) -> list[str]:
    names = [stage.name for stage in found.stages]
    problems = [f"measures: {name!r} stands there twice" for name in _twice(measure.name for measure in found.measures)]
    for measure in found.measures:
        where = f"measures, {measure.name!r}"
        for cell in measure.cells:
            if cell.stage is not None and cell.stage not in names:
                problems.append(f"{where}: {unknown('stage', cell.stage, names)}")
            elif (race := found.stage(cell.stage).race) is not None:
                problems.append(f"{where}: the runs of {found.stage(cell.stage).name} stand in stage {race.stage}; name that one")
            elif (methods := _methods(found, cell.stage)) and cell.method not in methods:
                problems.append(f"{where}: {unknown('method', cell.method, methods)}")
            if "." not in cell.metric and cell.metric not in METRICS:
                problems.append(f"{where}: {unknown('metric', cell.metric, METRICS)}")
    for table in found.published:
        if table.stage not in names:
            problems.append(f"published: {unknown('stage', table.stage, names)}")
        elif methods := _trained(found, table.stage):
            strangers = [name for name in table.instead.values() if name not in methods]
            problems += [f"published.instead: {unknown(f'method of stage {table.stage}', name, methods)}" for name in strangers]
        with noting(problems):
            published_in(table.table)
    return problems


def _methods(found: Study, name: str | None) -> list[str]:
    """What a stage has numbers of: its methods and its teacher; nothing where its bench has faults of its own."""
    trained = _trained(found, name)
    return [TEACHER, *trained] if trained else []


def _trained(found: Study, name: str | None) -> list[str]:
    """The methods that a stage trains, as its tables name them; nothing where its bench has faults of its own."""
    try:
        stage = found.stage(name)
        return list(dict.fromkeys([NONE, KD, *map(_label, found.config(stage).methods), *(which.method for which in stage.settings)]))
    except InputError:
        return []


def _label(text: str) -> str:
    """How tables name a method or a sum of methods; the text itself where only a plugin knows it."""
    with REGISTRY.declarations():
        try:
            return "+".join(parse_request(text).terms) or NONE
        except InputError:
            return text


def _has_first_stage(method: str) -> bool:
    """Whether a method, or one of a sum, trains in two stages; not where only a plugin knows it."""
    with REGISTRY.declarations():
        try:
            return any(REGISTRY.get(name).card.first is not None for name in parse_request(method).terms)
        except InputError:
            return False


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


def hours(found: Study) -> tuple[float, str] | None:
    """How long a study takes, and on which machine: as measured, else estimated; None where its networks are not kdzoo's own.

    The estimate counts the multiply-accumulates of teachers and students, not those of losses, at the speed of two cores.
    """
    if found.time is not None:
        return found.time.hours, found.time.machine
    counts = [_multiplications(found, stage) for stage in found.stages]
    if any(count is None for count in counts):
        return None
    return sum(count for count in counts if count is not None) / SPEED / 3600, SPEED_OF


def _multiplications(found: Study, stage: Stage) -> float | None:
    """Of all epochs of a bench, its refit's too: three forward passes a step for what is trained, one for a teacher."""
    config = found.config(stage)
    if stage.race is not None:
        return _multiplications_of_race(stage.race, config)
    planned, data = outline(config), DATA.get(config.data)
    if planned is None or data is None or data.train is None or data.shape is None:
        return None
    total = 0.0
    for teacher_name, student_name in planned.pairs:
        trained = stage.teacher is None
        of_teacher = _macs(teacher_name if trained else _student_of(found, stage), data.shape)
        of_student = _macs(student_name, data.shape)
        if of_teacher is None or of_student is None:
            return None
        runs = sum((number or 1) * len(config.seeds_for(name)) for name, number in planned.methods)
        alone = len(config.seeds_for(NONE))
        if wants_refit(config):
            more = config.refit_seeds or len(config.seeds)
            runs, alone = runs + more * len(planned.methods), alone + more
            total += trained * 3 * of_teacher  # it is trained again too, on all images
        total += runs * 3 * of_student + (runs - alone) * of_teacher + trained * 3 * of_teacher
    images = (config.limit or data.train) * (1 - (config.val_fraction or 0))
    return total * images * planned.epochs


def _multiplications_of_race(race: Race, config: BenchConfig) -> float | None:
    """Of all epochs of the seeds that a race adds to a refit."""
    planned, data = outline(config), DATA.get(config.data)
    if planned is None or data is None or data.train is None or data.shape is None:
        return None
    total, added = 0.0, _added_seeds(race, config)
    for teacher_name, student_name in planned.pairs:
        of_teacher, of_student = (_macs(name, data.shape) for name in (teacher_name, student_name))
        if of_teacher is None or of_student is None:
            return None
        total += sum(added.values()) * 3 * of_student + (added["methods"] + added[KD]) * of_teacher
    return total * (config.limit or data.train) * planned.epochs


def _added_seeds(race: Race, config: BenchConfig) -> dict[str, int]:
    """How many runs a race adds to the refit of one pair: of the methods that it takes, and of each control."""
    methods = (race.best + race.widest) * (race.seeds - len(refit_seeds("", config)))
    return {"methods": methods, **{name: race.seeds_for(name) - len(refit_seeds(name, config)) for name in CONTROLS}}


def count_runs(found: Study, stage: Stage) -> int | None:
    """How many runs a stage trains, its refit's too; None where its bench has faults.

    A method that only a plugin knows counts with one setting.
    """
    config = found.config(stage)
    planned = outline(config)
    if planned is None:
        return None
    planned = replace(planned, methods=tuple((name, 1 if number is None else number) for name, number in planned.methods))
    assert planned.runs is not None
    if stage.race is not None:
        return sum(_added_seeds(stage.race, config).values()) * len(planned.pairs)
    students = len({student for _, student in planned.pairs})
    again = sum(len(refit_seeds(name, config)) * (students if name == NONE else len(planned.pairs)) for name, _ in planned.methods)
    return planned.runs + (again if wants_refit(config) else 0)


def _student_of(found: Study, stage: Stage) -> str:
    """The network that an earlier stage trained, which teaches this one."""
    planned = None if stage.teacher is None else outline(found.config(found.stage(stage.teacher.stage)))
    return "" if planned is None else planned.pairs[0][1]


def _macs(name: str, shape: tuple[int, int, int]) -> float | None:
    """Multiply-accumulates of one image of this shape; None for a network that is not kdzoo's own."""
    known = own_networks().get(name.partition(":")[0].partition("@")[0])
    return None if known is None else known.macs * shape[1] * shape[2] / (known.input[1] * known.input[2])
