"""How long a study takes, estimated from the networks that it trains. Free of torch."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

from kdzoo.data.known import DATA
from kdzoo.runs.canonical import canonical_json
from kdzoo.suite.plan.config import CONTROLS, NONE, BenchConfig
from kdzoo.suite.plan.outline import outline
from kdzoo.suite.plan.race import Race
from kdzoo.suite.plan.refit import refit_seeds, validation_share, wants_refit
from kdzoo.suite.study.speed import UNMEASURED, Machine, macs_at
from kdzoo.suite.study.study import Study, StudyStage
from kdzoo.suite.study.which import Which

FULLY_CONNECTED = re.compile(r"mlp((?:_\d+)+)")


def hours(study: Study, machine: Machine = UNMEASURED) -> tuple[float, str] | None:
    """How long a study takes, and on which machine: as its file states, else estimated; None where its networks are not kdzoo's own.

    The estimate counts the multiply-accumulates of teachers and students, not those of losses and steps, at the speed of
    `machine`. A teacher that several stages have is trained once.
    """
    if study.time is not None:
        return study.time.hours, study.time.machine
    students = [_of_students(study, stage, machine) for stage in study.benches]
    students += [_of_race(study.config(stage), stage.race, machine) for stage in study.stages if stage.race is not None]
    teachers = {key: seconds for stage in study.benches for key, seconds in _of_teachers(study, stage, machine).items()}
    parts = [*students, *teachers.values()]
    if any(seconds is None for seconds in parts):
        return None
    return sum(seconds for seconds in parts if seconds is not None) / 3600, machine.name


def _of_students(study: Study, stage: StudyStage, machine: Machine) -> float | None:
    """Seconds of all epochs of a bench, its refit's too: three forward passes a step for the student, one for a teacher."""
    config = study.config(stage)
    planned, images = outline(config), _images(config)
    if planned is None or images is None:
        return None
    runs = sum((number or 1) * len(config.seeds_for(name)) for name, number in planned.methods)
    alone = len(config.seeds_for(NONE))
    if wants_refit(config):
        more = config.refit_seeds or len(config.seeds)
        runs, alone = runs + more * len(planned.methods), alone + more
    total = 0.0
    for teacher, student in planned.pairs:
        of_teacher = _macs(teacher, config) if stage.teacher is None else _macs_of(study, stage.teacher, config)
        of_student = _macs(student, config)
        if of_teacher is None or of_student is None:
            return None
        total += (runs - alone) * machine.seconds(3 * of_student + of_teacher) + alone * machine.seconds(3 * of_student)
    return total * images * planned.epochs(images)


def _of_race(config: BenchConfig, race: Race, machine: Machine) -> float | None:
    """Seconds of all epochs of the seeds that a race adds to a refit."""
    planned, data = outline(config), DATA.find(config.data)
    if planned is None or data is None or data.train is None:
        return None
    total, more = 0.0, added_runs(race, config)
    for teacher, student in planned.pairs:
        of_teacher, of_student = _macs(teacher, config), _macs(student, config)
        if of_teacher is None or of_student is None:
            return None
        taught = sum(more.values()) - more[NONE]
        total += taught * machine.seconds(3 * of_student + of_teacher) + more[NONE] * machine.seconds(3 * of_student)
    images = config.limit or data.train
    return total * images * planned.epochs(images)


def added_runs(race: Race, config: BenchConfig) -> dict[str, int]:
    """How many runs a race adds to the refit of one pair: of the methods that it takes together, and of each control."""
    methods = (race.best + race.widest) * (race.seeds - len(refit_seeds("", config)))
    return {"methods": methods, **{name: race.seeds_for(name) - len(refit_seeds(name, config)) for name in CONTROLS}}


def count_runs(study: Study, stage: StudyStage) -> int | None:
    """How many runs a stage trains, its refit's too; None where its bench has faults, none of a step.

    A method that only a plugin knows counts with one setting.
    """
    if stage.step is not None:
        return 0
    config = study.config(stage)
    planned = outline(config)
    if planned is None:
        return None
    if stage.race is not None:
        return sum(added_runs(stage.race, config).values()) * len(planned.pairs)
    planned = replace(planned, methods=tuple((name, 1 if number is None else number) for name, number in planned.methods))
    assert planned.runs is not None
    students = len({student for _, student in planned.pairs})
    again = sum(len(refit_seeds(name, config)) * (students if name == NONE else len(planned.pairs)) for name, _ in planned.methods)
    return planned.runs + (again if wants_refit(config) else 0)


def _of_teachers(study: Study, stage: StudyStage, machine: Machine) -> dict[str, float | None]:
    """Seconds of each teacher that a bench trains first, by all that decides which training it is."""
    config = study.config(stage)
    planned, images = outline(config), _images(config)
    if planned is None or images is None or stage.teacher is not None:
        return {}
    epochs = config.set.get("teacher_recipe.epochs", planned.epochs(images))
    same = {"data": config.data, "limit": config.limit, "val": config.val_fraction, "recipe": config.recipe, "epochs": epochs}
    counts = {name: _macs(name, config) for name, _ in planned.pairs}
    return {
        canonical_json({**same, "name": name, "set": config.set}): None if count is None else machine.seconds(3 * count) * images * epochs
        for name, count in counts.items()
    }


def _images(config: BenchConfig) -> float | None:
    """How many images a bench trains on; None where that is not known before the data are read."""
    data = DATA.find(config.data)
    return None if data is None or data.train is None else (config.limit or data.train) * (1 - validation_share(config))


def _macs_of(study: Study, teacher: Which, config: BenchConfig) -> float | None:
    """Multiply-accumulates of one image of the networks that an earlier stage makes, which teach together."""
    source = study.stage(teacher.stage)
    number, trains = (len(teacher.seeds), source) if source.step is None else (source.step.networks, study.stage(source.step.of.stage))
    planned = outline(study.config(trains))
    one = None if planned is None else _macs(planned.pairs[0][1], config)
    return None if one is None else number * one


def _macs(network: str, config: BenchConfig) -> float | None:
    """Multiply-accumulates of one image of a bench's data; None for a network that is not kdzoo's own."""
    name, data = network.partition(":")[0].partition("@")[0], DATA.find(config.data)
    if data is None or data.shape is None or data.classes is None:
        return None
    channels, height, width = data.shape
    if match := FULLY_CONNECTED.fullmatch(name):
        units = [channels * height * width, *map(int, match[1].split("_")[1:]), data.classes]
        return float(sum(one * other for one, other in itertools.pairwise(units)))
    return macs_at(name, height, width)
