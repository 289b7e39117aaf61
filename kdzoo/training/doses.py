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
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from kdzoo.contract import guard
from kdzoo.contract.batch import Batch, Losses, Progress
from kdzoo.contract.needs import Need, NetworkNeeds
from kdzoo.contract.objective import Term
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import Shapes
from kdzoo.data.dataset import Images
from kdzoo.data.epoch import Inputs
from kdzoo.data.split import Parts
from kdzoo.models.forward import outputs
from kdzoo.models.measure import count
from kdzoo.models.network import Network
from kdzoo.models.placement import Placement
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import ObjectiveSpec
from kdzoo.runs.store import RunFolder
from kdzoo.seeds import global_stream
from kdzoo.teachers.teacher import Teacher
from kdzoo.training.cohort import Cohort
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.member import Member
from kdzoo.training.regularise import set_dropout
from kdzoo.training.run_data import shape_of
from kdzoo.training.run_student import cohort_of, objective_of, student_network, student_shapes

WARM_UP_SHARE = 0.05
WARM_UP_STEPS = 200
"""the student first learns from cross-entropy alone, for this share of the recipe's steps, and at most this number of steps"""
BATCHES = 16
"""over how many batches after the warm-up the squares of the gradients' norms are averaged"""


class NoRatio(Exception):
    """The ratio of a method's gradient to that of cross-entropy is not a positive number; says what it is instead."""


@dataclass(frozen=True)
class Ratio:
    """What was measured of a term: the root mean squares of the norms of two gradients, and over how much."""

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


@dataclass
class _Probe:
    """One method on its way through a measurement: its objective as a member, and the squared norms of its gradients."""

    member: Member
    squares: list[Tensor] = field(default_factory=list)
    factor: float | None = None
    """on the loss that its own module learns in the warm-up (`_factor`); None before the first batch with a label"""
    fault: Exception | None = None

    @property
    def term(self) -> Term:
        return self.member.objective.terms[0]

    @property
    def learns(self) -> list[nn.Parameter]:
        """The trainable parameters of the method's own module."""
        return [parameter for parameter in self.member.objective.parameters() if parameter.requires_grad]

    @property
    def runs_network(self) -> bool:
        """Whether the method runs the student itself, and so needs a forward of its own."""
        return Need.NETWORK in self.member.needs

    @property
    def remembers(self) -> bool:
        """Whether the method's module has anything that a warm-up changes: parameters, or banks as buffers."""
        return any(True for _ in self.member.objective.parameters()) or any(True for _ in self.member.objective.buffers())


def measure(
    bounds: Sequence[LocatedRun],
    images: Images,
    parts: Parts,
    teacher: Teacher | None,
    shapes: Shapes | None,
    execution: Placement,
    modules: Modules,
    *,
    take_up: Callable[[Member, LocatedRun], None] = lambda member, bound: None,
    stop: Callable[[], None] = lambda: None,
) -> dict[str, Ratio | Exception]:
    """The ratio of each of several runs of one student, teacher, data set and recipe, by the runs' ids.

    Each run is one method with factor 1 beside cross-entropy with factor 1. All are measured with one student, which
    learns from cross-entropy alone at the recipe's base rate (`base`); meanwhile a method's own module learns its loss on
    the student's detached outputs, so that banks fill and regressors fit. Then the
    gradients of the next `BATCHES` batches are taken with everything at rest: without ramps, without auxiliary losses.
    Which methods are measured together changes no number. A method that fails gives its exception in place of its ratio.

    shapes: the teacher's, where it has one. take_up: called with each member before its first step, to start it from a
    pretrain stage. stop: called before every step; may raise.
    """
    alone = bounds[0].run.model_copy(update={"teacher": None, "objective": ObjectiveSpec(task=1.0), "recipe": base(bounds[0].run.recipe)})
    network = student_network(bounds[0], images, modules)
    own = student_shapes(alone, network, images, modules)
    size = count(network, shape_of(images, alone.recipe))
    faults: dict[str, Ratio | Exception] = {}

    def member_of(bound: LocatedRun) -> Member:
        taught = None if bound.run.teacher is None else shapes
        return Member(bound.run, bound.folder, network, size, objective_of(bound, network, own, images, parts, taught), execution)

    # The network is the learner's to limit: a probe would do it again, and what a number is would hang on how many there are.
    unlimited = alone.recipe.model_copy(update={"max_norm": None})
    learner = member_of(LocatedRun(alone, RunFolder(Path(alone.id)), bounds[0].paths))
    probes: list[_Probe] = []
    for bound in bounds:
        try:
            member = member_of(LocatedRun(bound.run.model_copy(update={"recipe": unlimited}), bound.folder, bound.paths))
            take_up(member, bound)
            probes.append(_Probe(member))
        except Exception as error:  # a method that cannot be built is its own failure alone
            faults[bound.run.id] = error
    cohort = cohort_of([learner, *(probe.member for probe in probes)], parts, teacher, execution)
    warm_up = warm_up_steps(cohort.steps_an_epoch * cohort.recipe.epochs)
    task: list[Tensor] = []
    for step, (seen, batch, taught) in enumerate(_batches(cohort, warm_up, probes)):
        stop()
        resting = step >= warm_up
        acting = [probe for probe in probes if probe.fault is None and (resting or probe.remembers)]
        act = _add_square if resting else _learn
        for probe in (one for one in acting if one.runs_network):
            with _unmoved(network):
                forward = _say(learner, seen, probe.member.needs, batch)
                _attempt(probe, partial(act, probe, forward, taught, batch, learner))
        student = _say(learner, seen, _union(one.member.needs for one in acting if not one.runs_network), batch)
        for probe in (one for one in acting if not one.runs_network):
            _attempt(probe, partial(act, probe, student, taught, batch, learner))
        ce = learner.objective.cross_entropy(student, batch)
        if resting:
            task.append(squared_norm(ce, network))
        else:
            learner.learn(Losses(ce, {"ce": ce}, ce, torch.zeros_like(ce)), len(batch.index), batch.clock.steps)
    found: dict[str, Ratio | Exception] = {}
    for bound, probe in zip([bound for bound in bounds if bound.run.id not in faults], probes, strict=True):
        found[bound.run.id] = probe.fault or Ratio(_rms(probe.squares), _rms(task), warm_up)
    return {**faults, **found}


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


def squared_norm(loss: Tensor, network: nn.Module) -> Tensor:
    """The squared norm of a loss's gradient over a network's trainable parameters, float64; a missing gradient is 0.

    The loss's graph is kept.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not loss.requires_grad:
        return torch.zeros((), dtype=torch.float64, device=loss.device)
    total = torch.zeros((), dtype=torch.float64, device=loss.device)
    for gradient in torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True):
        total += 0 if gradient is None else gradient.double().square().sum()
    return total


def _batches(cohort: Cohort, warm_up: int, probes: Sequence[_Probe]) -> Iterator[tuple[Inputs, Batch, Outputs | None]]:
    """The batches of the warm-up and of the measurement with the teacher's outputs, in the order of the recipe's training.

    In a warm-up of methods without modules of their own nobody learns from the teacher, and it is not asked.
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
            seen, batch = plan.gather(loaded, clock)
            asked = number >= warm_up or any(probe.remembers for probe in probes)
            yield seen, batch, answers.at(loaded.positions, seen) if asked and answers is not None else None
            number += 1


def _union(needs: Iterable[NetworkNeeds]) -> NetworkNeeds:
    return functools.reduce(operator.or_, needs, NetworkNeeds(Need.LOGITS))


def _say(learner: Member, seen: Inputs, needs: NetworkNeeds, batch: Batch) -> Outputs:
    """The student's forward for a batch, as the training of a run with seed 0 has it."""
    network = learner.network
    set_dropout(learner.run.recipe, batch.clock.epoch, learner.learners)
    with global_stream(0, "layers", batch.clock.step, device=batch.index.device):
        return outputs(network.train(), seen, needs)


def _learn(probe: _Probe, student: Outputs, teacher: Outputs | None, batch: Batch, learner: Member) -> None:
    """One step of a method's own module, on what the student says without a way back to it."""
    probe.member.objective.train()
    if probe.factor is None and bool((batch.targets >= 0).any()):
        probe.factor = _factor(probe, student, teacher, batch, learner)
    detached = _copies(probe, student).map(lambda tensor: tensor.detach())
    loss, auxiliary = _loss(probe, detached, teacher, batch)
    loss = (probe.factor or 0.0) * loss
    total = loss if auxiliary is None else loss + auxiliary
    if not probe.learns or not total.requires_grad:
        return
    gradients = torch.autograd.grad(total, probe.learns, allow_unused=True)
    for parameter, gradient in zip(probe.learns, gradients, strict=True):
        parameter.grad = gradient
    probe.member.update(Losses(total, {}, None, total), len(batch.index), batch.clock.steps)


def _factor(probe: _Probe, student: Outputs, teacher: Outputs | None, batch: Batch, learner: Member) -> float:
    """What a method's own module learns its loss with: the published coefficient, or less where that is a dose above 1.

    On the first batch with a label, before which the module's loss counts for nothing. A weight that was published for larger
    networks would have the module diverge before the student learns.
    """
    published = probe.term.method.card.published.term
    loss, _ = _loss(probe, _copies(probe, student), teacher, batch)
    of_term = float(squared_norm(loss, probe.member.network))
    of_task = float(squared_norm(learner.objective.cross_entropy(student, batch), probe.member.network))
    return min(published, math.sqrt(of_task / of_term)) if of_term > 0 and math.isfinite(of_term) else published


def _add_square(probe: _Probe, student: Outputs, teacher: Outputs | None, batch: Batch, learner: Member) -> None:
    loss, _ = _loss(probe, _copies(probe, student), teacher, batch)
    probe.squares.append(squared_norm(loss, learner.network))


def _loss(probe: _Probe, student: Outputs, teacher: Outputs | None, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """A method's loss and its auxiliary one; networks that it trains beside the student drop what the recipe says, as in training."""
    set_dropout(probe.member.run.recipe, batch.clock.epoch, probe.member.learners[1:])
    return probe.member.objective.loss_of(probe.term, student, teacher, batch)


def _copies(probe: _Probe, student: Outputs) -> Outputs:
    """The student's outputs, which all methods share; a user's method, which may change them, gets copies with their gradients."""
    return student.map(Tensor.clone) if probe.term.method.card.outside else student


def _attempt(probe: _Probe, act: Callable[[], None]) -> None:
    """A part of a measurement whose fault is the method's own."""
    try:
        with guard.watch(f"the loss of {probe.term.name!r}, or its backward,"):
            act()
    except Exception as error:
        probe.fault = error


@contextmanager
def _unmoved(network: Network) -> Iterator[None]:
    """The student's buffers as they were, around a forward that is one method's own."""
    before = [buffer.clone() for buffer in network.buffers()]
    try:
        yield
    finally:
        for buffer, value in zip(network.buffers(), before, strict=True):
            buffer.data.copy_(value)


def _rms(squares: Sequence[Tensor]) -> float:
    return math.sqrt(float(torch.stack(list(squares)).mean()))
