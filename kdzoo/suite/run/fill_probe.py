"""A process that measures a step of some runs, the students' part alone: answers of the teacher are cached in a bench.

It reads a request from its folder, says that it is ready, waits for a line, and says how long a step takes (`fill`). Any other
exception than a refusal ends it with a traceback.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import torch

from kdzoo.contract.batch import Progress
from kdzoo.contract.plugins import load_plugins
from kdzoo.errors import KdzooError
from kdzoo.models.kernels import set_kernels
from kdzoo.models.placement import Placement
from kdzoo.runs.fields import parse
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.spec import Run
from kdzoo.runs.store import RunFolder
from kdzoo.suite.run.accelerators import attach_accelerators
from kdzoo.suite.run.allocator import keep_freed_memory
from kdzoo.suite.run.fill import REQUEST
from kdzoo.suite.run.untrained import Untrained
from kdzoo.text import first_line
from kdzoo.training.cohort import Cohort
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.member import StepInputs
from kdzoo.training.run_student import build_member
from kdzoo.training.train import learn_batch

WARM_UP_STEPS = 6
"""more than it takes until steps are replayed"""
LEAST_STEPS = 5
LEAST_SECONDS = 1.0


class NotMeasurable(KdzooError):
    """Why these runs cannot be measured."""


def main(folder: Path, starts: TextIO, answers: TextIO) -> None:
    """Answer the request in a folder, below which runs may write; `starts` has a line when all processes are to begin."""
    try:
        cohort, step_inputs = prepare(json.loads((folder / REQUEST).read_text()), folder)
        for _ in range(WARM_UP_STEPS):
            learn_batch(cohort, step_inputs)
        refuse_failures(cohort)
        _say(answers, ready=1)
        if not starts.readline():  # whoever started it is gone
            return
        seconds = seconds_of_a_step(cohort, step_inputs)
        refuse_failures(cohort)  # a step of runs that have failed meanwhile would be the shortest
        _say(answers, seconds=seconds)
    except KdzooError as error:
        _say(answers, error=first_line(error))


def refuse_failures(cohort: Cohort) -> None:
    """Raises NotMeasurable with the last line of the first failure, where a run has failed."""
    if failures := [member.failure for member in cohort.members if member.failure is not None]:
        raise NotMeasurable(failures[0].splitlines()[-1])


def prepare(request: dict[str, Any], folder: Path) -> tuple[Cohort, StepInputs]:
    """The runs of a request under an untrained teacher, and a whole batch of the first epoch. folder: for what they may write.

    Raises NotMeasurable where students were to be a stack and cannot be.
    """
    load_plugins(request["plugins"])
    options = WorkerOptions.model_validate({**request["options"], "teacher_cache": "off"})
    torch.set_num_threads(options.threads)
    set_kernels(options)
    execution, modules = Placement(options), Modules()
    untrained = Untrained(modules, options.image_cache)
    located_runs = [LocatedRun(parse(Run, one["run"], "run"), RunFolder(folder), one["paths"]) for one in request["runs"]]
    dataset, splits = untrained.data(located_runs[0])
    with_teacher = next((one for one in located_runs if one.run.teacher is not None), None)
    teacher, shapes = (None, None) if with_teacher is None else untrained.live_teacher(with_teacher, execution)
    members = [build_member(one, dataset, splits, shapes if one.run.teacher else None, execution, modules) for one in located_runs]
    cohort = Cohort(members, splits, teacher, execution)
    notes: list[object] = []
    attach_accelerators(cohort, notes.append)
    if options.stack_students and cohort.batched is None:
        raise NotMeasurable("students cannot be one batch")
    plan = cohort.plan_epoch(0)
    loaded, teacher_answers = plan.load(torch.arange(cohort.block)), cohort.open_answers(plan)
    inputs, batch = plan.gather(loaded, Progress(0, cohort.recipe.epochs, 0, cohort.steps_an_epoch * cohort.recipe.epochs))
    return cohort, StepInputs(inputs, None if teacher_answers is None else teacher_answers.at(loaded.positions, inputs), batch, loaded.size)


def seconds_of_a_step(cohort: Cohort, step_inputs: StepInputs) -> float:
    """The mean by the clock over LEAST_STEPS or more, which take LEAST_SECONDS together."""
    steps, began = 0, time.perf_counter()
    while steps < LEAST_STEPS or time.perf_counter() - began < LEAST_SECONDS:
        learn_batch(cohort, step_inputs)
        if cohort.execution.device.type == "cuda":
            torch.cuda.synchronize(cohort.execution.device)
        steps += 1
    return (time.perf_counter() - began) / steps


def _say(answers: TextIO, **what: float | str) -> None:
    print(json.dumps(what), file=answers, flush=True)


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a plugin or a library prints is no answer
    keep_freed_memory()  # as the workers do, for whom it measures
    main(Path(sys.argv[1]), sys.stdin, own)
