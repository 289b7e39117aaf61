"""The weighted sum that a student minimises: the task loss and the methods' terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from kdzoo.contract import guard
from kdzoo.contract.batch import Batch, Losses, Progress
from kdzoo.contract.faults import MethodFault, fault_of_loss
from kdzoo.contract.heads import Head, heads_for, heads_of, outputs_of_column
from kdzoo.contract.joint import JointBatch
from kdzoo.contract.method import LossWithAux, Method, ParamGroup, stage_indices
from kdzoo.contract.needs import NO_NEEDS, Need, Needs, NotProvided
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.step_values import DeviceNumber
from kdzoo.seeds import generator, global_stream, library_stream, stream
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.task import Task


@dataclass(frozen=True)
class Term:
    """A method and the factor on its loss."""

    method: Method
    coefficient: float

    @property
    def name(self) -> str:
        return self.method.card.name


class Objective(nn.Module):
    """L = task * CE + sum of coefficient * ramp * method + auxiliaries, with the methods' trainable parts as submodules.

    `stages` pairs the student's and the teacher's stages by index, shallow to deep; a method that reads them otherwise is
    handed what it asks for (`stage_indices`). `preact` says whether the teacher gives pre-activation maps. Where several columns of
    targets are learned, a term that reads scores or labels is the weighted sum of what it comes to for each column that the teacher
    scores (`teacher_columns`, None for all), with a module for each (`part_name`). The loss of the task
    that it `learns`, cross-entropy of a classification, is the mean over the labelled samples of the batch, with the soft targets
    where images are mixed; without a labelled sample it is zero.
    """

    def __init__(
        self,
        task_weight: float,
        terms: Sequence[Term],
        modules: Mapping[str, nn.Module],
        *,
        stages: Sequence[tuple[int, int]],
        label_smoothing: float,
        seed: int,
        preact: bool = False,
        task: Task = CLASSIFICATION,
        teacher_columns: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.task = task
        self.task_weight = task_weight
        self.terms = tuple(terms)
        self.parts = nn.ModuleDict(dict(modules))
        heads = heads_of(task, teacher_columns)
        self.heads = {term.name: heads_for(term.method.card, heads) for term in terms}
        """the columns of targets for each of which a term is computed, by its name; None alone where it is computed once"""
        self.stage_indices = {term.name: stage_indices(term.method, stages) for term in terms}
        self.label_smoothing = label_smoothing
        self.seed = seed
        self.preact = preact
        self.failed_term: str | None = None
        """the name of the term whose loss raised an exception"""
        self.joint: JointBatch | None = None
        """the batch of all processes, where several train one student"""
        self.factors: dict[str, DeviceNumber] | None = None
        """the factor of each term at a place that stays, where steps are recorded (`prepare_recording`)"""
        self.streams: dict[str, torch.Generator] = {}
        """then also the random stream of each part"""
        self._copies: dict[str, dict[Need, nn.Module]] = {}
        """the copies of the teacher's modules that users' methods read, which are not parts of this module"""

    @property
    def needs(self) -> Needs:
        """What is read of the two networks in a step; the student's logits always, for cross-entropy."""
        needs = Needs(Need.LOGITS, Need.NOTHING) if self.task_weight else NO_NEEDS
        for term in self.terms:
            needs |= term.method.card.needs.resolve(self.preact)
        return needs

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Losses:
        """The losses of one batch; `teacher` is None where no term reads a teacher.

        Raises NotProvided, naming the method, where one reads what a loop of a user's own has not given.
        """
        parts: dict[str, Tensor] = {}
        distillation = torch.zeros((), device=batch.device)
        for term in self.terms:
            try:
                loss, auxiliary = self.loss_of(term, student, teacher, batch)
                factor = self._factor(term, batch.clock) if self.factors is None else self.factors[term.name].tensor.to(loss.dtype)
            except NotProvided as error:
                raise NotProvided(f"{term.name}: {error}") from error
            if self.joint is not None and term.method.card.per_sample:
                loss, auxiliary = loss * self.joint.share, None if auxiliary is None else auxiliary * self.joint.share
            parts[term.name] = loss
            distillation = distillation + factor * loss
            if auxiliary is not None:
                parts[f"{term.name}_auxiliary"] = auxiliary
                distillation = distillation + auxiliary
        if not self.task_weight:
            return Losses(distillation, parts, None, distillation)
        own = self.task_loss(student, batch)
        weighted = self.task_weight * own
        return Losses(weighted + distillation, {self.task.loss_name: own, **parts}, weighted, distillation)

    def task_loss(self, student: Outputs, batch: Batch) -> Tensor:
        """The task's own loss before its factor: a scalar."""
        logits, targets, soft_targets = student.logits, batch.targets, batch.soft_targets
        if self.joint is not None:  # a mean over the samples that have a label, of which processes may have different numbers
            gather = self.joint.gather
            logits, targets, soft_targets = gather(logits), gather(targets), None if soft_targets is None else gather(soft_targets)
        return self.task.loss(logits, targets, soft_targets, self.label_smoothing)

    def loss_of(self, term: Term, student: Outputs, teacher: Outputs | None, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """A term's loss before its factor and its ramp, and its auxiliary loss, where it has one: scalars."""
        try:
            results = [(head, self._loss(term.method, student, teacher, batch, head)) for head in self.heads[term.name]]
        except (Exception, SystemExit):
            self.failed_term = term.name
            raise
        if [head for head, _ in results] == [None]:
            result = results[0][1]
            return result if isinstance(result, LossWithAux) else (result, None)
        return _weighted_sum([(head.weight, result) for head, result in results if head is not None])

    def prepare_recording(self, device: torch.device) -> None:
        """From now on read the terms' factors and random streams where `set_step` puts them, so that a step can be recorded."""
        self.factors = {term.name: DeviceNumber(device, torch.float64) for term in self.terms}
        self.streams = {name: torch.Generator(device) for name in self.parts}

    def set_step(self, clock: Progress) -> None:
        """Set factors and random streams for a step, where they are held."""
        if self.factors is None:
            return
        for term in self.terms:
            self.factors[term.name].set(self._factor(term, clock))
        for name, own in self.streams.items():
            own.manual_seed(stream(self.seed, "method", name, clock.step))

    def places_of(self, parts: Sequence[str]) -> list[str]:
        """Where the methods behind these parts of the loss are defined, each as FILE:LINE."""
        return [term.method.card.origin for term in self.terms if {term.name, f"{term.name}_auxiliary"} & set(parts)]

    def groups(self) -> list[ParamGroup]:
        """How the methods' parameters are optimised."""
        groups: list[ParamGroup] = []
        for term in self.terms:
            for head in self.heads[term.name]:
                with guard.watch(called(term.method)):
                    groups += [group for group in term.method.groups(self.parts[part_name(term.name, head)]) if group.parameters]
        return groups

    def deployed(self, network: nn.Module) -> nn.Module:
        """What is measured and kept of a trained network: itself, or what a method makes of it."""
        for term in self.terms:
            if term.method.card.deploys:
                return Deployed(network, term.method, self.parts[term.name], self.stage_indices[term.name][0])
        return network

    def _loss(self, method: Method, student: Outputs, teacher: Outputs | None, batch: Batch, head: Head | None) -> Tensor | LossWithAux:
        ours, theirs = self.stage_indices[method.card.name]
        name = part_name(method.card.name, head)
        needs, module = method.card.needs.resolve(self.preact), self.parts[name]
        own_stream = (
            generator(self.seed, "method", name, batch.clock.step, device=batch.device) if self.factors is None else self.streams[name]
        )
        own_student = student.restrict_to(needs.student, ours, owner="student")
        own_teacher = (teacher or Outputs(owner="teacher")).restrict_to(needs.teacher, theirs, owner="teacher")
        if head is not None:
            own_student, own_teacher = outputs_of_column(own_student, head.student), outputs_of_column(own_teacher, head.teacher)
            batch = head.batch(batch)
        own_batch = batch.restrict_to(needs.student.outputs, own_stream)
        if self.joint is not None and not method.card.per_sample:
            gather = self.joint.gather
            own_student, own_teacher, own_batch = own_student.map(gather), own_teacher.map(gather), own_batch.map(gather)
        if not method.card.outside:
            return method.loss(own_student, own_teacher, own_batch, module)
        inputs = guard.lend(own_student, own_teacher, own_batch, self._copies.setdefault(name, {}))
        seed = own_stream.initial_seed()
        with global_stream(seed, "global", device=batch.device), library_stream(seed, "global"):
            result = guard.call(called(method), lambda s, t, b: method.loss(s, t, b, module), inputs)
        refuse_result(method, result)
        return cast(Tensor | LossWithAux, result)

    def _factor(self, term: Term, clock: Progress) -> float:
        """What a term's loss is multiplied with."""
        if not term.method.card.outside:
            return term.coefficient * term.method.ramp(clock)
        with guard.watch(called(term.method)):
            return term.coefficient * term.method.ramp(clock)


def refuse_result(method: Method, result: object) -> None:
    """Raises MethodFault for what is not a loss: no tensor, not a scalar, of whole numbers."""
    parts = tuple(result) if isinstance(result, LossWithAux) else (result,)
    if faults := list(filter(None, map(fault_of_loss, parts))):
        raise MethodFault(f"{called(method)} at {method.card.origin}: {faults[0]}")


def part_name(term: str, head: Head | None) -> str:
    """Under which name a term's module stands among the parts, its own for each head."""
    return term if head is None else f"{term}:{head.column}"


def _weighted_sum(results: Sequence[tuple[float, Tensor | LossWithAux]]) -> tuple[Tensor, Tensor | None]:
    """The losses of several heads and their auxiliary losses, each times the head's weight, added up."""
    losses = [weight * (one.loss if isinstance(one, LossWithAux) else one) for weight, one in results]
    auxiliaries = [weight * one.auxiliary for weight, one in results if isinstance(one, LossWithAux)]
    return torch.stack(losses).sum(), torch.stack(auxiliaries).sum() if auxiliaries else None


class Deployed(nn.Module):
    """A student as a method ships it: the trained network with parts of the method's module."""

    def __init__(self, network: nn.Module, method: Method, module: nn.Module, stages: Sequence[int] | None) -> None:
        super().__init__()
        self.network = network
        self.method = method
        self.module = module
        self.stages = stages

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images)

    def logits(self, images: Tensor) -> Tensor:
        """Class scores (B, K)."""
        return self.logits_of(self.network(images, self.needs))

    def logits_of(self, student: Outputs) -> Tensor:
        """Class scores (B, K) from the outputs of the student's network."""
        with guard.watch(called(self.method)):
            return self.method.deploy(student.restrict_to(self.needs, self.stages), self.module)

    @property
    def needs(self) -> Need:
        """What is read of the student's network."""
        return self.method.card.needs.student.outputs & ~Need.TARGETS


def called(method: Method) -> str:
    """How a method is named in messages."""
    return f"method {method.card.name!r}"
