"""A study: a claim of the literature, the benches that test it, and the numbers they have to reach. Free of torch.

`configs/papers/*.yaml` holds those that are shipped; `kdzoo reproduce` runs them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from kdzoo.contract.methods import REGISTRY
from kdzoo.errors import InputError
from kdzoo.files import CONFIGS
from kdzoo.runs.fields import Number, SeedCount, Spec
from kdzoo.suite.plan.config import KD, NONE, BenchConfig
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.race import Race
from kdzoo.suite.plan.requests import parse_request
from kdzoo.suite.report.published import HEADLINE, Published, published_in
from kdzoo.suite.study.measures import Cell, Measure, PublishedTable
from kdzoo.suite.study.steps import StepKeys
from kdzoo.suite.study.steps.step import Step
from kdzoo.suite.study.surface import SurfaceSpec
from kdzoo.suite.study.which import Of, Which, as_tuple

FOLDER = CONFIGS / "papers"


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class StudyStage(StepKeys):
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
        if empty := [key for key in self.model_fields_set if getattr(self, key) is None]:
            raise ValueError(f"{', '.join(sorted(empty))}: nothing stands below it; its keys may not be indented")
        return self

    @property
    def before(self) -> tuple[Of, ...]:
        """What it takes from earlier stages."""
        return (*((self.teacher,) if self.teacher else ()), *self.settings, *((self.step.of,) if self.step else ()))


class Time(Spec):
    """How long a study takes, and on which machine. measured: whether it was trained there, or only some of its steps."""

    hours: Annotated[Number, Field(gt=0)]
    machine: str
    measured: bool = True


class Study(Spec):
    """What a study's file holds.

    tries: what was tried before the recipe was settled, and on which images; the test set is evaluated for the settled
    recipe alone. seeds: how many each stage has unless its bench says otherwise. order: stages of one pair each, whose methods are set
    beside each other: whether their order carries over. time: measured, else it is estimated.
    """

    title: str
    claim: str
    source: str
    tries: Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
    seeds: SeedCount = 5
    stages: Annotated[tuple[StudyStage, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    measures: Annotated[tuple[Measure, ...], BeforeValidator(as_tuple)] = ()
    published: Annotated[tuple[PublishedTable, ...], BeforeValidator(as_tuple)] = ()
    surfaces: Annotated[tuple[SurfaceSpec, ...], BeforeValidator(as_tuple)] = ()
    order: Annotated[tuple[Name, ...], BeforeValidator(as_tuple)] = ()
    time: Time | None = None

    def stage(self, name: str | None) -> StudyStage:
        """A stage by name; the first where none is named."""
        return next(stage for stage in self.stages if name in (None, stage.name))

    def bench_of(self, stage: StudyStage) -> StudyStage:
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
        bench, methods = self.config(self.stage(table.stage)), methods_of(self, table.stage)
        published_there = [row for row in published_in(table.table) if row.pair in bench.pairs and row.data == bench.data]
        return [_measure(row, table, bench) for row in published_there if table.instead.get(row.method, row.method) in methods]

    def teacher_words(self, which: Which) -> str:
        """A teacher that an earlier stage makes, in words."""
        source = next((stage for stage in self.stages if stage.name == which.stage), None)
        return str(which) if source is None or source.step is None else f"the network of stage {which.stage}"

    @property
    def benches(self) -> tuple[StudyStage, ...]:
        """The stages that have a bench, without the steps between them and races, which train more seeds of a bench."""
        return tuple(stage for stage in self.stages if stage.step is None and stage.race is None)

    def config(self, stage: StudyStage, seeds: int | None = None, **more: Any) -> BenchConfig:
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
            metric=f"oracle.test.{HEADLINE}" if row.epoch == "best" and bench.oracle else HEADLINE,
        ),
        paper=row.value,
        tolerance=table.tolerance,
        reason=table.reason,
    )


def step_seeds(study: Study, step: Step, seeds: int | None = None) -> tuple[int, ...]:
    """The seeds of the runs that a step reads: those that it names, else all that their stage trains.

    seeds: how many each stage has instead of the study's.
    """
    return step.of.seeds or study.config(study.stage(step.of.stage), seeds).seeds_for(step.of.method)


def methods_of(study: Study, name: str | None) -> list[str]:
    """The methods that a stage trains, as its tables name them; nothing where its bench has faults of its own."""
    try:
        stage = study.stage(name)
        if stage.step is not None:
            return []
        return list(dict.fromkeys([NONE, KD, *map(label_of, study.config(stage).methods), *(which.method for which in stage.settings)]))
    except InputError:
        return []


def label_of(text: str) -> str:
    """How tables name a method or a sum of methods; the text itself where only a plugin knows it."""
    with REGISTRY.declarations():
        try:
            return "+".join(parse_request(text).terms) or NONE
        except InputError:
            return text
