"""A user's own loss is tried before any training: its first and its last step, on a few real images, with nothing kept."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

import torch

from kdzoo.contract import guard
from kdzoo.contract.advice import Networks
from kdzoo.contract.batch import Progress
from kdzoo.contract.diagnosis import diagnose, short_path
from kdzoo.contract.faults import MethodFault
from kdzoo.contract.method import Method
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.objective import Objective
from kdzoo.contract.shapes import Shapes
from kdzoo.data.dataset import Dataset
from kdzoo.data.split import Splits
from kdzoo.errors import InputError, KdzooError
from kdzoo.models.forward import outputs
from kdzoo.models.network import Network
from kdzoo.models.placement import Placement, autocast
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.spec import Run
from kdzoo.suite.run.fork import Fate, fate_in_copy
from kdzoo.teachers.teacher import Teacher
from kdzoo.training.cohort import Cohort
from kdzoo.training.located import LocatedRun
from kdzoo.training.member import Member
from kdzoo.training.run_data import input_shape
from kdzoo.training.run_student import deployed_cost

FEW = 4
"""images of a trial step; where so few fail, a whole batch is tried, since a loss may need more"""


def try_loss(
    located: LocatedRun,
    student: tuple[Network, Shapes],
    teacher: tuple[Network | Teacher, Shapes] | None,
    objective: Objective,
    dataset: Dataset,
    splits: Splits,
    device: torch.device,
    stalls: list[str],
) -> None:
    """Run forward and backward of an objective with users' methods on untrained networks; the objective is spent afterwards.

    It runs in a copy of this process first, on the CPU: a loss that kills its process (a crash in native code, a signal) is
    then refused by name instead of ending the bench. It runs here where the copy's result does not hold or has to be told:
    for a GPU, and where the loss raised. stalls: the objectives whose copy did not answer, to which this one is added if so;
    after the first one nothing is tried any more: each copy would take as long, and a loss that hangs would keep this process.
    No weight of the networks moves, and no file is written. Raises InputError where a user's method fails: with the line of it,
    what to write instead, and `kdzoo check FILE`.
    """
    if stalls:
        return
    cpu = torch.device("cpu")
    fate = fate_in_copy(lambda: _try_here(located, student, teacher, objective, dataset, splits, cpu))
    if fate is Fate.stalled:
        stalls.append(located.run.objective.label)
        return
    if not isinstance(fate, Fate):
        names = " or ".join(_name(method) for method in users_methods(objective))
        raise InputError(f"{names}: one training step ends the whole process, which {fate}; a loss must not end the process that calls it")
    if fate is not Fate.returned or device.type != "cpu":
        _try_here(located, student, teacher, objective, dataset, splits, device)


def _try_here(
    located: LocatedRun,
    student: tuple[Network, Shapes],
    teacher: tuple[Network | Teacher, Shapes] | None,
    objective: Objective,
    dataset: Dataset,
    splits: Splits,
    device: torch.device,
) -> None:
    """The trial in this process; raises as `try_loss` does."""
    network, before = student[0], {name: value.clone() for name, value in student[0].state_dict().items()}
    execution = Placement(WorkerOptions(device=str(device), threads=torch.get_num_threads(), teacher_cache=0))
    try:
        size = deployed_cost(network, objective, input_shape(dataset, located.run.recipe))
        member = Member(located.run, located.folder, network, size, objective, execution)
        without_network = teacher[0] if teacher is not None and isinstance(teacher[0], Teacher) else None
        cohort = Cohort([member], splits, without_network, execution)
        untrained = teacher[0] if teacher is not None and isinstance(teacher[0], Network) else None
        source = None if untrained is None else execution.place(untrained, located.run.recipe.precision)
        whole = min(located.run.recipe.batch_size, len(splits.train.targets))
        try:
            batches = _steps(cohort, source, min(FEW, whole))
        except Exception:
            if whole <= FEW:
                raise
            batches = _steps(cohort, source, whole)
    except Exception as error:
        raise InputError(_message(error, objective, student[1], teacher[1] if teacher else student[1])) from error
    finally:
        network.load_state_dict(before)
        network.zero_grad(set_to_none=True)
    idle = [method for method in users_methods(objective) if method.card.name not in batches]
    if idle:
        fault = "its loss carries no gradient: is the student detached (.detach(), torch.no_grad(), .argmax())?"
        raise InputError(*(f"{_name(method)}: {fault}{_see_check(method)}" for method in idle))


def trial_key(run: Run) -> tuple[str, ...]:
    """What decides how a trial of a run comes out: networks and methods with their hyper-parameters, whatever their weights are."""
    terms = sorted(f"{term.method} {sorted(term.hyperparameters.items())}" for term in run.objective.terms)
    return (str(run.student), str(run.teacher), str(run.recipe.augment), *terms)


def users_methods(objective: Objective) -> list[Method]:
    """The methods of an objective that are not kdzoo's own."""
    return [term.method for term in objective.terms if term.method.card.outside]


def check_hints(runs: Iterable[Run], failed: Iterable[str]) -> list[str]:
    """Where to look for the fault of failed runs whose methods come from a user's file; one line per file."""
    ids = set(failed)
    cards = [REGISTRY.get(term.method).card for run in runs if run.id in ids for term in run.objective.terms]
    files = {card.plugin: card.name for card in cards if card.plugin}
    return [f"runs with {name} failed: {_check_command(file)} finds most faults of a loss" for file, name in files.items()]


def _check_command(file: str) -> str:
    return f"`kdzoo check {shlex.quote(short_path(file))}`"


def _steps(cohort: Cohort, teacher: Network | None, size: int) -> set[str]:
    """The first and the last step of a run, on `size` images each: the methods whose loss carried a gradient.

    Both, since a loss may be constant while it warms up. Raises what a method raises, and MethodFault for NaN and infinity.
    """
    (member,) = cohort.members
    recipe = member.run.recipe
    steps = cohort.steps_an_epoch * recipe.epochs
    reached: set[str] = set()
    for clock in (Progress(0, recipe.epochs, 0, steps), Progress(recipe.epochs - 1, recipe.epochs, steps - 1, steps)):
        plan = cohort.plan_epoch(clock.epoch)
        loaded = plan.load(torch.arange(min(size, cohort.block)))
        inputs, batch = plan.gather(loaded, clock)
        answers = cohort.open_answers(plan)
        answer = None if answers is None else answers.at(loaded.positions, inputs)
        if teacher is not None and cohort.teacher_needs:
            with torch.no_grad(), autocast(recipe, cohort.execution.device):
                answer = outputs(teacher, inputs, cohort.teacher_needs)
        with guard.watch(f"the backward of {member.run.objective.label}"):
            losses = member.losses(inputs, answer, batch, loaded.size)
            names = [method.card.name for method in users_methods(member.objective)]
            if bad := [name for name in names if not bool(torch.isfinite(losses.parts[name].detach()))]:
                raise MethodFault(
                    f"method {bad[0]!r}: its loss is NaN or infinite on {size} images and untrained networks: is there a log, a root or a "
                    "division of something that is zero or negative?"
                )
            if losses.total.requires_grad:
                losses.total.backward()  # type: ignore[no-untyped-call]
        member.objective.zero_grad(set_to_none=True)
        reached |= {name for name in names if losses.parts[name].requires_grad}
    return reached


def _message(error: Exception, objective: Objective, student: Shapes, teacher: Shapes) -> str:
    """Whose fault it is, where, and what to write instead."""
    method = _failing(error) or users_methods(objective)[0]
    needs, (ours, theirs) = method.card.needs, objective.stage_indices[method.card.name]
    networks = Networks(student.pick(ours), teacher.pick(theirs), (needs.student | needs.teacher).outputs)
    words = diagnose(error, method.card.definition[0], networks)
    text = words if isinstance(error, KdzooError) and _name(method) in words else f"{_name(method)}: one training step fails: {words}"
    return f"{text}{_see_check(method)}"


def _failing(error: Exception) -> Method | None:
    """The method whose loss was being computed when an error was raised; None for one of the backward or of a network."""
    trace: Any = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is Objective._loss.__code__:
            method: Method = trace.tb_frame.f_locals["method"]
            return method
        trace = trace.tb_next
    return None


def _name(method: Method) -> str:
    return f"method {method.card.name!r}"


def _see_check(method: Method) -> str:
    """Where to find out more about a method that a file holds."""
    return f"; see {_check_command(method.card.plugin)}" if method.card.plugin else ""
