"""Every distinct student, teacher and objective of a plan is built once, untrained, before any of them is trained."""

from __future__ import annotations

from dataclasses import replace

import torch

from kdzoo.contract.objective import Objective
from kdzoo.errors import InputError, collect_problems
from kdzoo.suite.plan.planned import Plan
from kdzoo.suite.run.fork import PATIENCE_SECONDS
from kdzoo.suite.run.saved_teachers import check_saved_teachers
from kdzoo.suite.run.sharing import refuse_sharing
from kdzoo.suite.run.trial import trial_key, try_loss, users_methods
from kdzoo.suite.run.untrained import Untrained, bind, distinct
from kdzoo.training.located import LocatedRun
from kdzoo.training.run_data import input_shape
from kdzoo.training.run_networks import load_network
from kdzoo.training.run_student import build_run_objective, build_student


def preflight(plan: Plan, untrained: Untrained, device: torch.device | None = None, check: int = 0, processes: int = 1) -> tuple[str, ...]:
    """Build every distinct student, teacher and objective once, untrained, and try users' losses for a step; notes on these trials.

    check: how many rows of a saved teacher's file are compared with the live one, where that is kept here. processes: that train
    each run together.
    Raises InputError for what cannot work.
    """
    problems: list[str] = []
    trials = LossTrials(device or torch.device("cpu"))
    for planned in plan.teachers.values():
        with collect_problems(problems):
            located = bind(planned, plan)
            dataset, splits = untrained.data(located)
            refuse_sharing(located.run, len(splits.train.targets), processes)
            build_student(located, dataset, splits, None, untrained.modules)
    for planned in distinct(plan.students, lambda p: (str(p.run.student), str(p.run.teacher), str(p.run.objective))):
        with collect_problems(problems):
            located = bind(planned, plan)
            refuse_sharing(located.run, len(untrained.data(located)[1].train.targets), processes)
            build_objectives(located, untrained, trials)
    notes: list[str] = []
    with collect_problems(problems):
        notes += check_saved_teachers(plan, untrained, check)
    for planned in distinct((p for p in plan.students if p.run.teacher), lambda p: (str(p.run.teacher),)):
        with collect_problems(problems):
            load_teacher_weights(bind(planned, plan), plan, untrained)
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return (*notes, *trials.notes())


class LossTrials:
    """Tries users' losses on a device, each once. stalls: the objectives whose trial in a copy of this process did not answer."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._keys: set[tuple[str, ...]] = set()
        self._stalls: list[str] = []

    def try_once(self, located: LocatedRun, objective: Objective, untrained: Untrained) -> None:
        """Try the loss of a run where it is a user's and has not been tried; raises InputError where it fails."""
        key = trial_key(located.run)
        if users_methods(objective) and key not in self._keys:
            self._keys.add(key)
            student, teacher, data = untrained.student(located), untrained.teacher(located), untrained.data(located)
            try_loss(located, student, teacher, objective, *data, self._device, self._stalls)

    def notes(self) -> tuple[str, ...]:
        return tuple(
            f"{label}: the trial of its loss in a copy of this process did not answer within {PATIENCE_SECONDS:.0f} seconds; it and the "
            "losses after it are not tried: what is wrong with one of them is told when it is trained, and a run that hangs is ended "
            "after --run-timeout"
            for label in self._stalls
        )


def build_objectives(located: LocatedRun, untrained: Untrained, trials: LossTrials) -> None:
    """Build the objectives of a run and of its pretrain stage; raises InputError where one cannot serve its networks or its data."""
    dataset, splits = untrained.data(located)
    teacher, student = untrained.teacher_shapes(located), untrained.student(located)
    for run in filter(None, (located.run.pretrain_run, located.run)):
        stage = located if run is located.run else replace(located, run=run)
        objective = build_run_objective(stage, *student, dataset, splits, teacher)
        trials.try_once(stage, objective, untrained)


def load_teacher_weights(located: LocatedRun, plan: Plan, untrained: Untrained) -> None:
    """Build the teacher of a run with its own weights, unless this bench trains it first; raises InputError where they do not fit."""
    spec = located.run.teacher
    if spec is None or not spec.is_network or spec.start.removeprefix("run:") in plan.teachers:
        return
    dataset, _ = untrained.data(located)
    load_network(
        spec,
        dataset,
        side=input_shape(dataset, located.run.recipe)[1],
        seed=0,
        path=located.paths.get("teacher"),
        modules=untrained.modules,
    )
