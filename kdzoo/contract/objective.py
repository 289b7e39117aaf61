"""The weighted sum that a student minimises: the task loss and the methods' terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdzoo.contract import guard
from kdzoo.contract.batch import Batch, Losses
from kdzoo.contract.diagnosis import MethodFault, Networks, diagnose, fault_of_loss, fault_of_module
from kdzoo.contract.method import LossWithAux, Method, ParamGroup, stages_handed
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import NO_NEEDS, Need, Needs, NotProvided, Pass
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.runs.spec import ObjectiveSpec
from kdzoo.seeds import generator, global_stream, library_stream


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
    handed what it asks for (`stages_handed`). `preact` says whether the teacher gives pre-activation maps. Cross-entropy is
    the mean over the labelled samples of the batch, with the soft targets where images are mixed; without a labelled sample
    it is zero.
    """

    def __init__(
        self,
        task: float,
        terms: Sequence[Term],
        modules: Mapping[str, nn.Module],
        *,
        stages: Sequence[tuple[int, int]],
        label_smoothing: float,
        seed: int,
        preact: bool = False,
    ) -> None:
        super().__init__()
        self.task = task
        self.terms = tuple(terms)
        self.parts = nn.ModuleDict(dict(modules))
        self.handed = {term.name: stages_handed(term.method, stages) for term in terms}
        self.label_smoothing = label_smoothing
        self.seed = seed
        self.preact = preact
        self.failed_term: str | None = None
        """the name of the term whose loss raised an exception"""
        self.gather: Callable[[Tensor], Tensor] | None = None
        """from a tensor (B, ...) of this process's batch to that of all processes' batches, (B', ...), where several train one student"""
        self._copies: dict[str, dict[Need, nn.Module]] = {}
        """the copies of the teacher's modules that users' methods read, which are not parts of this module"""

    @property
    def needs(self) -> Needs:
        """What is read of the two networks in a step; the student's logits always, for cross-entropy."""
        needs = Needs(Need.LOGITS, Need.NOTHING) if self.task else NO_NEEDS
        for term in self.terms:
            needs |= term.method.card.needs.settled(self.preact)
        return needs

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Losses:
        """The losses of one batch; `teacher` is None where no term reads a teacher.

        Raises NotProvided, naming the method, where one reads what a loop of a user's own has not given.
        """
        parts: dict[str, Tensor] = {}
        distilled = torch.zeros((), device=batch.device)
        for term in self.terms:
            try:
                loss, auxiliary = self.loss_of(term, student, teacher, batch)
                factor = term.coefficient * self._ramp(term.method, batch)
            except NotProvided as error:
                raise NotProvided(f"{term.name}: {error}") from error
            parts[term.name] = loss
            distilled = distilled + factor * loss
            if auxiliary is not None:
                parts[f"{term.name}_auxiliary"] = auxiliary
                distilled = distilled + auxiliary
        if not self.task:
            return Losses(distilled, parts, None, distilled)
        ce = self.cross_entropy(student, batch)
        task = self.task * ce
        return Losses(task + distilled, {"ce": ce, **parts}, task, distilled)

    def cross_entropy(self, student: Outputs, batch: Batch) -> Tensor:
        """The task loss before its factor: a scalar."""
        if batch.soft_targets is None:
            return cross_entropy(student.logits, batch.targets, self.label_smoothing)
        return soft_cross_entropy(student.logits, batch.soft_targets, self.label_smoothing)

    def loss_of(self, term: Term, student: Outputs, teacher: Outputs | None, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """A term's loss before its factor and its ramp, and its auxiliary loss, where it has one: scalars."""
        try:
            given = self._loss(term.method, student, teacher, batch)
        except (Exception, SystemExit):
            self.failed_term = term.name
            raise
        return given if isinstance(given, LossWithAux) else (given, None)

    def places_of(self, parts: Sequence[str]) -> list[str]:
        """Where the methods behind these parts of the loss are defined, each as FILE:LINE."""
        return [term.method.card.origin for term in self.terms if {term.name, f"{term.name}_auxiliary"} & set(parts)]

    def groups(self) -> list[ParamGroup]:
        """How the methods' parameters are optimised."""
        found: list[ParamGroup] = []
        for term in self.terms:
            with guard.watched(_called(term.method)):
                found += [group for group in term.method.groups(self.parts[term.name]) if group.parameters]
        return found

    def shipped(self, network: nn.Module) -> nn.Module:
        """What is measured and kept of a trained network: itself, or what a method makes of it."""
        for term in self.terms:
            if term.method.card.ships:
                return Deployed(network, term.method, self.parts[term.name], self.handed[term.name][0])
        return network

    def _loss(self, method: Method, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor | LossWithAux:
        ours, theirs = self.handed[method.card.name]
        needs, module = method.card.needs.settled(self.preact), self.parts[method.card.name]
        own_stream = generator(self.seed, "method", method.card.name, batch.clock.step, device=batch.device)
        read = student.only(needs.student, ours, owner="student")
        taught = (teacher or Outputs(owner="teacher")).only(needs.teacher, theirs, owner="teacher")
        given = batch.only(needs.student.outputs, own_stream)
        if method.card.remembers and self.gather is not None:
            read, taught, given = read.map(self.gather), taught.map(self.gather), given.map(self.gather)
        if not method.card.outside:
            return method.loss(read, taught, given, module)
        inputs = guard.lend(read, taught, given, self._copies.setdefault(method.card.name, {}))
        seed = own_stream.initial_seed()
        with global_stream(seed, "global", device=batch.device), library_stream(seed, "global"):
            result = guard.call(_called(method), lambda s, t, b: method.loss(s, t, b, module), inputs)
        refuse_result(method, result)
        return cast(Tensor | LossWithAux, result)

    def _ramp(self, method: Method, batch: Batch) -> float:
        if not method.card.outside:
            return method.ramp(batch.clock)
        with guard.watched(_called(method)):
            return method.ramp(batch.clock)


def refuse_result(method: Method, result: object) -> None:
    """Raises MethodFault for what is not a loss: no tensor, not a scalar, of whole numbers."""
    parts = tuple(result) if isinstance(result, LossWithAux) else (result,)
    if faults := list(filter(None, map(fault_of_loss, parts))):
        raise MethodFault(f"{_called(method)} at {method.card.origin}: {faults[0]}")


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
        with guard.watched(_called(self.method)):
            return self.method.deploy(student.only(self.needs, self.stages), self.module)

    @property
    def needs(self) -> Need:
        """What is read of the student's network."""
        return self.method.card.needs.student.outputs & ~Need.TARGETS


def _called(method: Method) -> str:
    """How a method is named in messages."""
    return f"method {method.card.name!r}"


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy of (B, K) logits, mean over the samples whose target is not -1, in float32 at least."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    total = F.cross_entropy(wide, targets, ignore_index=-1, label_smoothing=label_smoothing, reduction="sum")
    return total / (targets >= 0).sum().clamp(min=1)


def soft_cross_entropy(logits: Tensor, shares: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy of (B, K) logits with the classes' shares (B, K), in float32 at least.

    The mean over samples weighed by how much of each is labelled, the sum of its shares: 1 but where a part of a mix
    has no label. Smoothing moves so much of every share to all classes alike.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    log_q = wide.log_softmax(1)
    labelled = shares.sum(1, keepdim=True)
    smooth = (1 - label_smoothing) * shares + label_smoothing * labelled / shares.shape[1]
    return -(smooth * log_q).sum() / labelled.sum().clamp(min=1)


def terms_of(spec: ObjectiveSpec) -> tuple[Term, ...]:
    """The methods of a specification; raises InputError where one is unknown or not the version that was asked for."""
    terms = tuple(Term(REGISTRY.create(t.method, t.hyperparameters), t.coefficient) for t in spec.terms)
    stale = [
        f"methods: {asked.method!r} was planned in version {asked.version}, but {have.method.card.origin} defines "
        f"version {have.method.card.version}"
        for asked, have in zip(spec.terms, terms, strict=True)
        if asked.version != have.method.card.version
    ]
    if stale:
        raise InputError(*stale)
    return terms


def build_objective(
    spec: ObjectiveSpec,
    student: Shapes,
    teacher: Shapes | None,
    stages: Sequence[tuple[int, int]],
    facts: DataFacts,
    *,
    label_smoothing: float,
    seed: int,
    terms: Sequence[Term] | None = None,
) -> Objective:
    """The objective of a run with freshly made modules, each drawn from its method's own random stream.

    terms: the methods of `spec`, where they are made already. Raises InputError with every method that cannot serve these two
    networks or these data.
    """
    terms = terms_of(spec) if terms is None else terms
    problems: list[str] = []
    modules: dict[str, nn.Module] = {}
    for term in terms:
        needs = term.method.card.needs
        if {Need.STAGES, Need.PREACT} & set(needs.student.outputs & needs.teacher.outputs) and not stages:
            problems.append(f"{term.name}: the two networks have no stages to pair ({_listed(student)} under {_listed(teacher)})")
            continue
        for role, shapes, need in (("student", student, needs.student.outputs), ("teacher", teacher, needs.teacher.outputs)):
            problems.extend(f"{term.name}: {missing}" for missing in (_missing(role, shapes, need) if shapes else ()))
        if (needs.targets or Pass.PARTNER in needs.student) and facts.lacks_labels:
            reads = "reads the labels of every sample" if needs.targets else "pairs each sample with another of its label"
            problems.append(f"{term.name}: {reads}, but some samples have none (label_fraction < 1, or transfer_data)")
            continue
        try:
            with global_stream(seed, "build", term.name), library_stream(seed, "build", term.name):
                ours, theirs = stages_handed(term.method, stages)
                learning = student.pick(ours)
                teaching = teacher.pick(theirs) if teacher else learning
                modules[term.name] = _built(term.method, learning, teaching, facts)
        except InputError as error:
            problems.extend(f"{term.name}: {problem}" for problem in error.problems)
        except (guard.Interference, MethodFault) as error:
            problems.append(str(error))
        except Exception as error:
            if not term.method.card.outside:
                raise
            networks = Networks(learning, teaching, (needs.student | needs.teacher).outputs)
            words = diagnose(error, term.method.card.definition[0], networks)
            problems.append(f"{_called(term.method)} at {term.method.card.origin}: its build() fails: {words}")
    if problems:
        raise InputError(*problems)
    preact = teacher is not None and teacher.preact
    return Objective(spec.task, terms, modules, stages=stages, label_smoothing=label_smoothing, seed=seed, preact=preact)


def _built(method: Method, student: Shapes, teacher: Shapes, facts: DataFacts) -> nn.Module:
    if not method.card.outside:
        return method.build(student, teacher, facts)
    module = guard.build(_called(method), method.build, student, teacher, facts)
    if fault := fault_of_module(module):
        raise MethodFault(f"{_called(method)} at {method.card.origin}: {fault}")
    return module


def _missing(role: str, shapes: Shapes, need: Need) -> Iterator[str]:
    """What a network cannot give of what is read of it."""
    if Need.EMBEDDING in need and not shapes.embedding:
        yield f"reads the {role}'s embedding, but that network's classifier cannot be found"
    if Need.CLASSIFIER in need and shapes.classifier is None:
        yield f"reads the {role}'s classifier, but that network has no single layer that maps its embedding to its logits"
    if Need.PREACT in need and not shapes.preact:
        yield f"reads the {role}'s pre-activation maps, which only kdzoo's own networks and timm's ResNets and RegNets provide"
    if Need.DISTILLED in need and not shapes.distilled:
        yield f"reads the {role}'s distillation token, which only timm's distilled models have (deit_tiny_distilled_patch16_224, ...)"


def _listed(shapes: Shapes | None) -> str:
    return ", ".join(map(str, shapes.stages)) if shapes and shapes.stages else "none"
