"""From a bench in words to the list of planned runs: methods x settings x pairs x seeds, each distinct run once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdzoo.contract.methods import REGISTRY
from kdzoo.data.dataset import Dataset
from kdzoo.errors import InputError, collect_problems
from kdzoo.runs.licences import recorded, refusals
from kdzoo.runs.spec import ObjectiveSpec
from kdzoo.suite.plan.bench_data import BenchData, image_size, plan_data, read_images, results_among_images
from kdzoo.suite.plan.changes import below, read_changes
from kdzoo.suite.plan.config import KD, BenchConfig
from kdzoo.suite.plan.edition import misfits_here
from kdzoo.suite.plan.grid import GridPoint, PairGrid, control_notes, known_ratios
from kdzoo.suite.plan.networks import unknown_networks
from kdzoo.suite.plan.objectives import faults_of_settings
from kdzoo.suite.plan.pairs import read_pairs
from kdzoo.suite.plan.planned import Plan, PlannedRun
from kdzoo.suite.plan.recipe_files import RecipeFile, recipe_file, recipes
from kdzoo.suite.plan.requests import Request, read_requests, why_no_dose
from kdzoo.suite.plan.run_factory import PairNetwork, RunFactory
from kdzoo.text import number_of
from kdzoo.training.located import Modules


@dataclass(frozen=True)
class PairRuns:
    """The runs of one pair of networks, one for every point of its grid and seed: the same run may be there several times.

    teacher: the run that trains the teacher, where that has to be trained. unmeasured: what has to be measured first.
    """

    students: tuple[PlannedRun, ...]
    teacher: PlannedRun | None
    unmeasured: tuple[PlannedRun, ...]
    notes: tuple[str, ...]


def plan(config: BenchConfig, modules: Modules | None = None) -> Plan:
    """Every distinct run of a bench; raises InputError with all problems, before any work."""
    modules = modules or Modules()
    problems: list[str] = []
    requests = read_requests(config, problems)
    if faults := results_among_images(config):  # such a folder is not read, since a class without images in it may be an earlier bench
        raise InputError(*problems, *faults)
    changes = read_changes(config, problems)
    protocol, images = _read_files(config, changes, problems)
    pairs = read_pairs(config, problems)  # where the data are wrong it does not ask for a pair, which a data set may have
    if protocol is None or images is None:
        problems += [*unknown_networks(pairs, modules), *faults_of_settings(requests, config, "deep")]
        raise InputError(*dict.fromkeys(problems))
    data = plan_data(config, protocol, images, image_size(protocol, changes), problems)
    factory = RunFactory(config, protocol, changes, data, modules)
    ratios: Mapping[str, float] = {}
    with collect_problems(problems):
        ratios = known_ratios(config)
    runs: list[PairRuns] = []
    for teacher, student in pairs:
        with collect_problems(problems):
            runs.append(_plan_pair(factory, requests, teacher, student, ratios, problems))
    problems += _refused_licences(config, runs)
    if config.edition is not None:
        with collect_problems(problems):
            problems += misfits_here(config.edition, ((one.run, one.about) for pair in runs for one in pair.students))
    if problems:
        problems += faults_of_settings(requests, config, factory.pairing)  # which no pair has reported where none could be resolved
        raise InputError(*dict.fromkeys(problems))
    unchosen = [] if data.record["validation"] else _notes_on_choice(runs)
    notes = [*_notes_on_config(config), *unchosen, *(note for one in runs for note in one.notes), *_notes_on_doses(config, requests)]
    return _join(config, data, runs, [*notes, *_notes_on_teacher_recipe(changes, runs)])


def _read_files(
    config: BenchConfig, changes: Mapping[str, Any], problems: list[str]
) -> tuple[RecipeFile, Dataset] | tuple[RecipeFile | None, Dataset | None]:
    """The recipe and the images of a bench; each is None where it cannot be had, and what is wrong is added to `problems`."""
    protocol = dataset = None
    with collect_problems(problems):
        protocol = recipe_file(config.recipe)
    with collect_problems(problems):
        dataset = read_images(config, image_size(protocol, changes))
    for name in protocol.published if protocol is not None else ():
        with collect_problems(problems):
            REGISTRY.get(name)
    return protocol, dataset


def _plan_pair(
    factory: RunFactory, requests: Sequence[Request], teacher_text: str, student_text: str, ratios: Mapping[str, float], problems: list[str]
) -> PairRuns:
    """The runs of one pair, as its networks are named; raises InputError where one of these cannot be had.

    What is wrong with its settings is added to `problems`.
    """
    teacher = student = None
    faults: list[str] = []
    with collect_problems(faults):
        teacher = factory.teacher(teacher_text)
    with collect_problems(faults):
        student = factory.student(student_text)
    if teacher is None or student is None:
        raise InputError(*faults)
    published = factory.protocol.published_for(f"{teacher.spec.name}/{student.spec.name}")
    epochs = factory.recipe_of(student.spec, False).epochs
    points = PairGrid(factory, teacher, student, factory.pairing, epochs, published, ratios).points(requests, problems)
    students = tuple(planned for point in points for planned in _of_point(factory, teacher, student, point))
    notes = (*teacher.notes, *student.notes, *control_notes([point.objective for point in points], published))
    return PairRuns(students, teacher.training, tuple(probe for point in points for probe in point.unmeasured), notes)


def _of_point(factory: RunFactory, teacher: PairNetwork, student: PairNetwork, point: GridPoint) -> Iterator[PlannedRun]:
    """The runs of a point of the grid, one a seed, which share what is recorded beside them."""
    first, *others = factory.config.seeds_for(point.objective.label)
    planned = factory.run(teacher, student, point.objective, first, point.doses, provisional=bool(point.unmeasured))
    yield planned
    for seed in others:
        yield replace(planned, run=planned.run.model_copy(update={"seed": seed}))


def _join(config: BenchConfig, data: BenchData, pairs: Sequence[PairRuns], notes: Sequence[str]) -> Plan:
    """The plan of all pairs, each run and each measurement once."""
    students: dict[str, PlannedRun] = {}
    duplicates: Counter[str] = Counter()
    for planned in (planned for pair in pairs for planned in pair.students):
        if students.setdefault(planned.run.id, planned) is not planned:
            duplicates[_why_duplicate(planned.run.objective)] += 1
    return Plan(
        name=config.name,
        folder=Path(config.results) / config.name,
        students=tuple(students.values()),
        teachers={pair.teacher.run.id: pair.teacher for pair in pairs if pair.teacher is not None},
        grid_size=sum(len(pair.students) for pair in pairs),
        duplicates=dict(duplicates),
        data=data.record,
        notes=tuple(dict.fromkeys(notes)),
        unmeasured=tuple({probe.run.id: probe for pair in pairs for probe in pair.unmeasured}.values()),
    )


def _refused_licences(config: BenchConfig, pairs: Sequence[PairRuns]) -> list[str]:
    """What runs are made from under licences that were not asked for."""
    of_students = [thing for pair in pairs for one in pair.students for thing in recorded(one.about)]
    of_teachers = [thing.of_teacher for pair in pairs if pair.teacher for thing in recorded(pair.teacher.about)]
    return refusals((*of_students, *of_teachers), config.licence)


def _why_duplicate(objective: ObjectiveSpec) -> str:
    """Why a point of the grid needs no run of its own."""
    if not objective.all_terms:
        return "alpha = 0 or weight 0 is the student alone"
    return f"another setting of {objective.label} comes to the same coefficients"


def _notes_on_config(config: BenchConfig) -> Iterator[str]:
    if "recipe" not in config.model_fields_set:
        others = ", ".join(name for name in recipes() if name != config.recipe)
        yield (
            f"recipe: none was given, and {config.data} has no default one: {config.recipe} is used, a trial of a few epochs whose "
            f"numbers mean little; for real numbers give one: --recipe {others}, or a file"
        )
    if config.transfer_only:
        yield "the transfer set has no labels: the student alone learns nothing from it and is a control at chance"


def _notes_on_choice(pairs: Iterable[PairRuns]) -> list[str]:
    """That nothing can choose among several settings of a method, since no image is held out; empty where each has one."""
    counts: dict[str, int] = {}
    for pair in pairs:
        settings: dict[str, set[str]] = {}
        for planned in pair.students:
            settings.setdefault(planned.run.objective.label, set()).add(planned.run.objective.model_dump_json())
        counts |= {label: len(found) for label, found in settings.items() if len(found) > counts.get(label, 1)}
    if not counts:
        return []
    text = ", ".join(f"{number_of(count, 'setting')} of {label}" for label, count in counts.items())
    no_verdict = ", and there is no verdict about KD, which has several" if KD in counts else ""
    return [
        f"no image is held out for validation, so that nothing can choose among {text}: each is a row of its own{no_verdict}; "
        "--val-fraction 0.2 holds some out, or give one setting of each method"
    ]


def _notes_on_doses(config: BenchConfig, requests: Sequence[Request]) -> list[str]:
    reasons = [reason for request in requests if config.doses and request.terms and (reason := why_no_dose(request))]
    return [f"no dose for {reason}; its published weight is used" for reason in reasons]


def _notes_on_teacher_recipe(changes: Mapping[str, Any], pairs: Sequence[PairRuns]) -> list[str]:
    keys = ", ".join(f"teacher_recipe.{key}" for key in below(changes, "teacher_recipe"))
    if not keys or any(pair.teacher is not None for pair in pairs):
        return []
    return [f"{keys}: no effect, since the teacher has its weights already and is not trained"]
