"""How large the gradient of a method's loss is beside that of cross-entropy, for the networks and the data at hand.

The dose of a term is w r / t: w its weight, t the factor on cross-entropy, and r the ratio that is measured here,
rms |grad D| / rms |grad CE| over all trainable parameters of the student's network.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kdzoo.contract.batch import Batch, Losses, Progress
from kdzoo.contract.needs import Need, NetworkNeeds
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import Shapes
from kdzoo.data.dataset import Dataset
from kdzoo.data.epoch import Inputs
from kdzoo.data.split import Splits
from kdzoo.models.forward import outputs
from kdzoo.models.measure import network_cost
from kdzoo.models.network import Network
from kdzoo.models.placement import Placement
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import ObjectiveSpec
from kdzoo.runs.store import RunFolder
from kdzoo.seeds import global_stream
from kdzoo.teachers.teacher import Teacher
from kdzoo.training.cohort import Cohort
from kdzoo.training.dose_probe import DoseProbe, squared_norm
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.member import Member
from kdzoo.training.regularise import set_dropout
from kdzoo.training.run_data import input_shape
from kdzoo.training.run_student import build_run_objective, student_network, student_shapes

WARM_UP_SHARE = 0.05
WARM_UP_STEPS = 200
"""the student first learns from cross-entropy alone, for this share of the recipe's steps, and at most this number of steps"""
BATCHES = 16
"""the number of batches after the warm-up over which the squared norms of the gradients are averaged"""


class NoRatio(Exception):
    """The ratio of a method's gradient to that of cross-entropy is not a positive number; says what it is instead."""


@dataclass(frozen=True)
class Ratio:
    """What was measured of a term: the root mean squares of the norms of two gradients, and over how many steps and batches."""

    term_gradient: float
    task_gradient: float
    warm_up_steps: int
    batches: int = BATCHES

    @property
    def value(self) -> float:
        """r, to six significant digits: what is written to a file is what is used. Raises NoRatio where it is none."""
        if not math.isfinite(self.term_gradient) or not math.isfinite(self.task_gradient):
            raise NoRatio("its gradient, or that of cross-entropy, is NaN or infinite after the warm-up")
        if self.task_gradient == 0:
            raise NoRatio("cross-entropy sends no gradient to the student's network")
        if self.term_gradient == 0:
            raise NoRatio("its loss sends no gradient to the student's network")
        return float(f"{self.term_gradient / self.task_gradient:.6g}")


def measure(
    located_runs: Sequence[LocatedRun],
    dataset: Dataset,
    splits: Splits,
    teacher: Teacher | None,
    shapes: Shapes | None,
    execution: Placement,
    modules: Modules,
    *,
    prepare_member: Callable[[Member, LocatedRun], None] = lambda member, located: None,
    stop: Callable[[], None] = lambda: None,
) -> dict[str, Ratio | Exception]:
    """The ratio of each of several runs of one student, teacher, data set and recipe, by the runs' ids.

    Each run is one method with factor 1 beside cross-entropy with factor 1. All are measured with one student, which
    learns from cross-entropy alone at the recipe's base rate (`base`); meanwhile a method's own module learns its loss on
    the student's detached outputs, so that banks fill and regressors fit. Then the gradients of the next `BATCHES` batches are
    taken, and nothing learns: without ramps, without auxiliary losses.
    Which methods are measured together changes no number. A method that fails gives its exception in place of its ratio.

    shapes: the teacher's, where it has one. prepare_member: called with each member before its first step, to start it from a
    pretrain stage. stop: called before every step; may raise.
    """
    alone = located_runs[0].run.model_copy(
        update={"teacher": None, "objective": ObjectiveSpec(task=1.0), "recipe": base(located_runs[0].run.recipe)}
    )
    network = student_network(located_runs[0], dataset, modules)
    own = student_shapes(alone, network, dataset, modules)
    size = network_cost(network, input_shape(dataset, alone.recipe))

    def member_of(located: LocatedRun) -> Member:
        teacher_shapes = None if located.run.teacher is None else shapes
        objective = build_run_objective(located, network, own, dataset, splits, teacher_shapes)
        return Member(located.run, located.folder, network, size, objective, execution)

    # Only the learner applies max-norm: if each probe did too, the ratios would depend on how many there are.
    unlimited = alone.recipe.model_copy(update={"max_norm": None})
    learner = member_of(LocatedRun(alone, RunFolder(Path(alone.id)), located_runs[0].paths))
    probes: dict[str, DoseProbe] = {}
    faults: dict[str, Ratio | Exception] = {}
    for located in located_runs:
        try:
            member = member_of(LocatedRun(located.run.model_copy(update={"recipe": unlimited}), located.folder, located.paths))
            prepare_member(member, located)
            probes[located.run.id] = DoseProbe(member, learner)
        except Exception as error:  # a method that cannot be built is its own failure alone
            faults[located.run.id] = error
    cohort = Cohort([learner, *(probe.member for probe in probes.values())], splits, teacher, execution)
    warm_up = warm_up_steps(cohort.steps_an_epoch * cohort.recipe.epochs)
    task = _run_probes(cohort, learner, list(probes.values()), warm_up, stop)
    return faults | {name: probe.fault or Ratio(_rms(probe.squares), _rms(task), warm_up) for name, probe in probes.items()}


def _run_probes(cohort: Cohort, learner: Member, probes: Sequence[DoseProbe], warm_up: int, stop: Callable[[], None]) -> list[Tensor]:
    """Train the student and the methods' modules through the warm-up, then add up what the probes measure.

    Returns the squared norms of the gradient of cross-entropy, one a batch. A method that runs the student itself gets a
    forward of its own, after which the student's buffers are put back.
    """
    task: list[Tensor] = []
    for step, (inputs, batch, teacher) in enumerate(_batches(cohort, warm_up, probes)):
        stop()
        measures = step >= warm_up
        act = DoseProbe.add_square if measures else DoseProbe.learn
        active = [probe for probe in probes if probe.fault is None and (measures or probe.remembers)]
        sharing = [probe for probe in active if not probe.runs_network]
        for probe in (one for one in active if one.runs_network):
            with _buffers_restored(learner.network):
                student = _student_outputs(learner, inputs, probe.member.needs, batch)
                act(probe, student, teacher, batch)
        student = _student_outputs(learner, inputs, _union(probe.member.needs for probe in sharing), batch)
        for probe in sharing:
            act(probe, student, teacher, batch)
        ce = learner.objective.task_loss(student, batch)
        if measures:
            task.append(squared_norm(ce, learner.network))
        else:
            learner.learn(Losses(ce, {"ce": ce}, ce, torch.zeros_like(ce)), len(batch.index), batch.clock.steps)
    return task


def base(recipe: Recipe) -> Recipe:
    """A recipe's optimiser at its base rate, in float32; two momenta are one where there is one loss."""
    changes = {
        "schedule": "constant",
        "milestones": (),
        "warmup": 0.0,
        "ema": None,
        "ema_warmup": False,
        "dot": None,
        "precision": "float32",
    }
    return recipe.model_copy(update=changes)


def warm_up_steps(steps: int) -> int:
    """How many of a training's `steps` the student learns before anything is measured."""
    return min(WARM_UP_STEPS, max(1, int(WARM_UP_SHARE * steps)))


def _batches(cohort: Cohort, warm_up: int, probes: Sequence[DoseProbe]) -> Iterator[tuple[Inputs, Batch, Outputs | None]]:
    """The batches of the warm-up and of the measurement with the teacher's outputs, in the order of the recipe's training.

    In a warm-up of methods without modules of their own nobody learns from the teacher, and it is not run.
    """
    steps, an_epoch = cohort.steps_an_epoch * cohort.recipe.epochs, cohort.steps_an_epoch
    number, last = 0, warm_up + BATCHES
    for epoch in range(math.ceil(last / an_epoch)):
        plan = cohort.plan_epoch(epoch)
        answers = cohort.open_answers(plan)
        for loaded in plan.batches():
            if number == last:
                return
            clock = Progress(min(epoch, cohort.recipe.epochs - 1), cohort.recipe.epochs, min(number, steps - 1), steps)
            inputs, batch = plan.gather(loaded, clock)
            needs_teacher = number >= warm_up or any(probe.remembers for probe in probes)
            yield inputs, batch, answers.at(loaded.positions, inputs) if needs_teacher and answers is not None else None
            number += 1


def _union(needs: Iterable[NetworkNeeds]) -> NetworkNeeds:
    return functools.reduce(operator.or_, needs, NetworkNeeds(Need.LOGITS))


def _student_outputs(learner: Member, inputs: Inputs, needs: NetworkNeeds, batch: Batch) -> Outputs:
    """The student's outputs for a batch, computed as in the training of a run with seed 0."""
    network = learner.network
    set_dropout(learner.run.recipe, batch.clock, learner.learners)
    with global_stream(0, "layers", batch.clock.step, device=batch.index.device):
        return outputs(network.train(), inputs, needs)


@contextmanager
def _buffers_restored(network: Network) -> Iterator[None]:
    """Put the network's buffers back at the end, as they were before a forward that is one method's own."""
    before = [buffer.clone() for buffer in network.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(network.buffers(), before, strict=True):
            buffer.data.copy_(value)


def _rms(squares: Sequence[Tensor]) -> float:
    return math.sqrt(float(torch.stack(list(squares)).mean()))
