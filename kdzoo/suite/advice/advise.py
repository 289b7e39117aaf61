"""Advice on a pair of networks: what can be told before any student is trained."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from kdzoo.contract.methods import REGISTRY
from kdzoo.errors import InputError
from kdzoo.files import cache_folder
from kdzoo.models.pairs import pair as named_pair
from kdzoo.runs.atomic import ensure_writable
from kdzoo.runs.events import Emit
from kdzoo.runs.store import teacher_store
from kdzoo.suite.advice.facts import Capacity, TeacherFacts, look_at
from kdzoo.suite.advice.rule import LARGE, Choice, recommend
from kdzoo.suite.advice.trials import Trial, read_trials
from kdzoo.suite.plan.config import KD, BenchConfig
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.plan.sweep import plan as make_plan
from kdzoo.suite.plan.yaml_files import read_yaml, shipped_files
from kdzoo.suite.report.records import Record, read_record
from kdzoo.suite.run.bench import with_weights
from kdzoo.suite.run.estimate import estimate
from kdzoo.suite.run.launchers import LauncherSetup, create_launcher
from kdzoo.suite.run.preflight import LossTrials, build_objectives
from kdzoo.suite.run.prepare import Prepared, configure, prepare
from kdzoo.suite.run.untrained import Untrained, bind
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.training.located import Modules

KEPT = "advice"
"""the folder below the cache in which measured doses are kept, so that the same question is answered at once"""


@dataclass(frozen=True)
class KeptTeacher:
    """A teacher that is kept, by the id of the run that trained it. test: its headline on test images."""

    id: str
    epochs: int
    test: float | None


@dataclass(frozen=True)
class Advice:
    """What is advised for a pair of networks, and its grounds.

    teacher: None where it is not trained yet, or does not score images by itself; teacher_command then trains it, and
    kept_teachers are those of the same network and images that were trained otherwise. doses: by
    method, the dose of its published weight here. too_large: those of maps, relations and gradients whose dose is LARGE or more,
    the largest first. without_dose: by method, why it has none. refused: by method, why it cannot be trained with this pair.
    choices: what to try, the most promising first. tables: those that the advice rests on.
    seconds: of the bench that `command` runs, by estimate.
    """

    pair: str
    data: str
    teacher: TeacherFacts | None
    teacher_command: str | None
    kept_teachers: tuple[KeptTeacher, ...]
    capacity: Capacity | None
    doses: Mapping[str, float]
    too_large: tuple[str, ...]
    without_dose: Mapping[str, str]
    refused: Mapping[str, str]
    choices: tuple[Choice, ...]
    tables: tuple[tuple[str, str, str], ...]
    seconds: float
    command: str


def advise(options: Mapping[str, Any], emit: Emit, trials: Sequence[Trial] | None = None, modules: Modules | None = None) -> Advice:
    """What is advised for a bench's options with one pair of networks, from the trials of earlier benches (None for kdzoo's own).

    Measures the doses of all methods, as a bench would, where the teacher's weights are at hand; trains no network to its end.
    Raises InputError for options that no bench takes, and for several pairs or a task that is not one label a sample.
    """
    modules = modules or Modules()
    options = as_in_default_bench(options)
    known = read_trials() if trials is None else list(trials)
    plain = _prepare(options, modules, methods=[KD])
    _refuse_others(plain)
    refused = refusals(options, modules)
    candidates = [name for name in sorted(REGISTRY.own_names()) if name not in refused]
    without_dose = {name: why for name in candidates if (why := REGISTRY.get(name).card.no_dose)}
    is_trained = all(teacher_store().run(run_id).state() == "done" for run_id in plain.plan.teachers)
    doses, facts, capacity = dict[str, float](), None, None
    if is_trained:
        doses = measure_published_doses(options, [name for name in candidates if name not in without_dose], modules, emit)
        taught = next(planned for planned in plain.plan.students if planned.run.teacher is not None)
        facts, capacity = look_at(bind(taught, plain.plan), plain.options, modules)
    choices = tuple(recommend(known, candidates, doses))
    keys = {**options, **keys_of(choices)}
    return Advice(
        pair=str(plain.plan.students[0].about["pair"]),
        data=plain.config.data,
        teacher=facts,
        teacher_command=None if is_trained else _train_command(options),
        kept_teachers=() if is_trained else kept_teachers(plain.plan),
        capacity=capacity,
        doses=doses,
        too_large=tuple(sorted((name for name, dose in doses.items() if is_too_large(name, dose)), key=lambda name: -doses[name])),
        without_dose=without_dose,
        refused=refused,
        choices=choices,
        tables=tuple(dict.fromkeys(trial.table for choice in choices for trial in choice.trials)),
        seconds=estimate(_prepare(keys, modules)),
        command=command_of(options, choices),
    )


def as_in_default_bench(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the recipe of the default bench, where they name its pair of networks and its data and no recipe."""
    default = read_yaml(shipped_files("benches")["digits"])
    pair = named_pair(default["pairs"][0])
    request = (options.get("teacher"), options.get("student"), options.get("data", default["data"]))
    if request != (pair.teacher, pair.student, default["data"]) or {"recipe", "epochs", "lr", "set"} & set(options):
        return dict(options)
    return {**options, "recipe": default["recipe"], "set": default["set"]}


def kept_teachers(plan: Plan) -> tuple[KeptTeacher, ...]:
    """The kept teachers of the networks and images of a plan's teachers, whatever recipe and seed they were trained with."""
    networks = {(planned.run.student.name, planned.run.data.name) for planned in plan.teachers.values()}
    records: list[Record] = []
    for run_id in teacher_store().ids():
        with suppress(InputError):  # a damaged one is told by `kdzoo teachers`
            records.append(read_record(teacher_store().run(run_id)))
    return tuple(
        KeptTeacher(one.id, one.run.recipe.epochs, one.headline("test"))
        for one in records
        if one.state == "done" and (one.run.student.name, one.run.data.name) in networks
    )


def _prepare(options: Mapping[str, Any], modules: Modules, **changes: Any) -> Prepared:
    return prepare(_configure(options, modules, **changes), modules)


def _configure(options: Mapping[str, Any], modules: Modules, **changes: Any) -> BenchConfig:
    """The configuration of a bench of one seed in the cache folder, whose name is drawn from what is asked."""
    digest = hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()[:12]
    place = {"results": str(cache_folder() / KEPT), "name": digest}
    return configure({"seeds": 1, **options, **place, **changes}, modules=modules)


def _refuse_others(prepared: Prepared) -> None:
    pairs = sorted({str(planned.about["pair"]) for planned in prepared.plan.students})
    if len(pairs) > 1:
        raise InputError(f"advise: expected one pair of networks, got {', '.join(pairs)}")
    tasks = {planned.run.data.task for planned in prepared.plan.students}
    if tasks != {CLASSIFICATION.name}:
        raise InputError(f"advise: expected one label a sample, the task is {', '.join(sorted(map(str, tasks)))}")


def refusals(options: Mapping[str, Any], modules: Modules) -> dict[str, str]:
    """Which methods cannot be trained with a pair, and why: each is planned and built once, untrained."""
    refused: dict[str, str] = {}
    untrained, trials = Untrained(modules, None), LossTrials(torch.device("cpu"))
    for name in sorted(REGISTRY.own_names()):
        try:
            plan = make_plan(_configure(options, modules, methods=[name]), modules)
            for planned in [one for one in plan.students if one.run.objective.label == name][:1]:
                build_objectives(bind(planned, plan), untrained, trials)
        except InputError as error:
            refused[name] = error.problems[0]
    return refused


def measure_published_doses(options: Mapping[str, Any], methods: Sequence[str], modules: Modules, emit: Emit) -> dict[str, float]:
    """By method, the dose of its published weight on a pair of networks, measured where it is not kept from before."""
    prepared = _prepare(options, modules, methods=list(methods), doses=[1.0])
    ensure_writable(prepared.plan.folder)
    with create_launcher(LauncherSetup.of_bench(prepared.config, modules), "here") as launcher:
        with_ratios, _ = with_weights(replace(prepared, jobs=1), launcher, emit, modules)
    found: dict[str, float] = {}
    for planned in with_ratios.plan.students:
        for name, measured in planned.about.get("doses", {}).items():
            published = REGISTRY.get(name).card.published
            found[name] = published.term * float(measured["ratio"]) / published.task
    return found


def is_too_large(method: str, dose: float) -> bool:
    """Whether a dose is larger than any that was good for what the method compares."""
    return dose >= LARGE and REGISTRY.get(method).card.family in ("features", "relations", "gradients")


def keys_of(choices: Sequence[Choice]) -> dict[str, Any]:
    """The keys of a bench that tries the choices, each at its setting to begin with."""
    return {"methods": [choice.method for choice in choices], "grid": axes_of(choices)}


def axes_of(choices: Sequence[Choice]) -> dict[str, list[float]]:
    """The doses and temperatures that are to be tried in place of the declared ones, as axes of a bench."""
    axes: dict[str, list[float]] = {}
    for choice in choices:
        if choice.dose is not None:
            axes[f"{choice.method}.dose"] = [choice.dose]
        if choice.temperature is not None and "temperature" in REGISTRY.get(choice.method).model_fields:
            axes[f"{choice.method}.temperature"] = [choice.temperature]
    return axes


def command_of(options: Mapping[str, Any], choices: Sequence[Choice]) -> str:
    """The bench that tries the choices, as a command."""
    axes = [f"{axis}={value:g}" for axis, values in axes_of(choices).items() for value in values]
    methods = ",".join(choice.method for choice in choices)
    return shlex.join(["kdzoo", "bench", *_words(options), "--methods", methods, *(word for axis in axes for word in ("--grid", axis))])


def _train_command(options: Mapping[str, Any]) -> str:
    """The command that trains the teacher of a bench's options, as the bench would."""
    return shlex.join(
        ["kdzoo", "train", str(options["teacher"]), *_words({k: v for k, v in options.items() if k not in ("teacher", "student")})]
    )


def _words(options: Mapping[str, Any]) -> list[str]:
    """The options of a command for keys of a bench."""
    words: list[str] = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            words += [word for key, one in value.items() for word in (flag, f"{key}={one}")]
        elif isinstance(value, bool):
            words += [flag] if value else []
        elif isinstance(value, list | tuple):
            words += [word for one in value for word in (flag, str(one))]
        else:
            words += [flag, str(value)]
    return words
