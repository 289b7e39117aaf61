"""Every distinct student, teacher and objective of a plan is built once, untrained, before any of them is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from kdzoo.contract.shapes import Shapes
from kdzoo.data.dataset import Images
from kdzoo.data.split import Parts
from kdzoo.errors import InputError, noting
from kdzoo.models.ensemble import Ensemble
from kdzoo.models.measure import probe as shapes_of
from kdzoo.models.network import Network, freeze
from kdzoo.runs.spec import NetworkSpec
from kdzoo.runs.store import RunFolder
from kdzoo.suite.plan.planned import Plan, Planned
from kdzoo.suite.run.fork import PATIENCE_SECONDS
from kdzoo.suite.run.trial import trial_key, try_loss, users_methods
from kdzoo.teachers.saved import SavedTeacher, saved_teacher, shapes_of_saved
from kdzoo.training.session import (
    Bound,
    Modules,
    data_of,
    members_of,
    network_of,
    objective_of,
    refuse_what_is_not_saved,
    saved_file,
    shape_of,
    student_network,
    student_of,
    student_shapes,
)


def preflight(plan: Plan, modules: Modules, image_cache: int | None = None, device: torch.device | None = None) -> tuple[str, ...]:
    """Build every distinct student, teacher and objective once, untrained, and try users' losses for a step; notes on these trials.

    Raises InputError for what cannot work.
    """
    problems: list[str] = []
    stalls: list[str] = []
    students: dict[str, tuple[Network, Shapes]] = {}
    teacher_shapes: dict[str, Shapes | None] = {}
    tried: set[tuple[str, ...]] = set()
    for planned in plan.teachers.values():
        with noting(problems):
            bound = unbound(planned, plan)
            student_of(bound, *data_of(bound, image_cache), None, modules)
    for planned in distinct(plan.students, lambda p: (str(p.run.student), str(p.run.teacher), str(p.run.objective))):
        with noting(problems):
            bound = unbound(planned, plan)
            images, parts = data_of(bound, image_cache)
            if bound.run.teacher is not None and bound.run.teacher.saved is not None:
                refuse_what_is_not_saved(bound, parts)
            if str(bound.run.teacher) not in teacher_shapes:
                teacher = stand_in(bound, images, parts, modules)
                teacher_shapes[str(bound.run.teacher)] = None if teacher is None else teacher[1]
            if str(bound.run.student) not in students:
                network = student_network(bound, images, modules)
                students[str(bound.run.student)] = network, student_shapes(bound.run, network, images, modules)
            student, shapes = students[str(bound.run.student)], teacher_shapes[str(bound.run.teacher)]
            for run in filter(None, (bound.run.first, bound.run)):
                objective = objective_of(run, *student, images, parts, shapes)
                if users_methods(objective) and (what := trial_key(run)) not in tried:
                    tried.add(what)
                    teacher_of_run = stand_in(bound, images, parts, modules)
                    bound_run, place = replace(bound, run=run), device or torch.device("cpu")
                    try_loss(bound_run, student, teacher_of_run, objective, images, parts, place, stalls)
    for planned in distinct((p for p in plan.students if p.run.teacher), lambda p: (str(p.run.teacher),)):
        with noting(problems):
            load_given_weights(unbound(planned, plan), plan, modules, image_cache)
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return tuple(
        f"{label}: the trial of its loss in a copy of this process did not answer within {PATIENCE_SECONDS:.0f} seconds; it and the "
        f"losses after it are tried in this process, which a crash in one of them would end"
        for label in stalls
    )


def load_given_weights(bound: Bound, plan: Plan, modules: Modules, image_cache: int | None) -> None:
    """Build the teacher of a run with its own weights, unless this bench trains it first; raises InputError where they do not fit."""
    spec = bound.run.teacher
    if spec is None or spec.saved is not None or spec.start.removeprefix("run:") in plan.teachers:
        return
    images, _ = data_of(bound, image_cache)
    network_of(spec, images, side=shape_of(images, bound.run.recipe)[1], seed=0, path=bound.paths.get("teacher"), modules=modules)


def stand_in(bound: Bound, images: Images, parts: Parts, modules: Modules) -> tuple[Network | SavedTeacher, Shapes] | None:
    """What a loss is tried with in the teacher's place: the network untrained, or the saved teacher itself."""
    spec = bound.run.teacher
    if spec is not None and spec.saved is not None:
        file = saved_file(bound)
        return saved_teacher(file, parts, bound.run.recipe), shapes_of_saved(file)
    network = untrained_teacher(bound, images, modules)
    return None if network is None else (network, shapes_of(network, shape_of(images, bound.run.recipe)))


def untrained_teacher(bound: Bound, images: Images, modules: Modules) -> Network | None:
    """A teacher with random weights, which has the shapes and the cost of the trained one."""
    if bound.run.teacher is None:
        return None
    side = shape_of(images, bound.run.recipe)[1]

    def untrained(spec: NetworkSpec) -> Network:
        return freeze(network_of(spec.model_copy(update={"start": "random"}), images, side=side, seed=0, path=None, modules=modules))

    members = members_of(bound.run.teacher, bound.paths.get("teacher"))
    return Ensemble([untrained(member) for member, _ in members]) if members else untrained(bound.run.teacher)


def unbound(planned: Planned, plan: Plan) -> Bound:
    """A planned run with its folder, which need not exist yet."""
    return Bound(planned.run, RunFolder(plan.folder / "runs" / planned.run.id), planned.about["paths"])


def distinct(planned: Iterable[Planned], key: Callable[[Planned], tuple[str, ...]]) -> list[Planned]:
    """The first of each key, in order."""
    return list({key(p): p for p in reversed(list(planned))}.values())[::-1]
