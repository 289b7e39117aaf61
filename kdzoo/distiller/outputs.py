"""A method for two networks' outputs, for loops that run the networks themselves."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

from torch import Tensor, nn

from kdzoo.contract.batch import Losses
from kdzoo.contract.joint import ProcessGroup
from kdzoo.contract.needs import Need, describe
from kdzoo.contract.objective import Deployed
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts, Shapes, StageShape
from kdzoo.distiller.losses import Blueprint, MethodLosses, module_kind, validate_epochs
from kdzoo.distiller.request import missing, refusals
from kdzoo.distiller.states import has_states, lay_out_states
from kdzoo.errors import InputError, collect_problems
from kdzoo.runs.spec import ObjectiveSpec, Pairing

OF_A_NETWORK = ~Need.TARGETS
"""what outputs can have"""


class OutputsDistiller(MethodLosses):
    """Cross-entropy and a method's terms for the outputs of a student and of a teacher.

    It has neither network: `parameters()` are the methods' own.
    """

    def __init__(
        self,
        spec: ObjectiveSpec,
        student: Outputs,
        teacher: Outputs | None,
        *,
        data: DataFacts | None,
        epochs: int | None,
        label_smoothing: float,
        pairing: Pairing,
        seed: int,
        process_group: ProcessGroup | None,
    ) -> None:
        """Build the methods for outputs such as these two; `kdzoo.Distiller.from_outputs` says what the rest means."""
        problems = list(refusals(spec, teacher=teacher is not None, same_inputs=True))
        problems += missing(spec, "student", OF_A_NETWORK, provides(student))
        problems += missing(spec, "teacher", OF_A_NETWORK, provides(teacher)) if teacher is not None else ()
        if spec.task and not provides(student) & Need.LOGITS:
            problems.append("student: cross-entropy reads its logits, which its outputs do not have")
        with collect_problems(problems):
            validate_epochs(epochs)
        if problems:
            raise InputError(*problems)
        of_texts = has_states(student), teacher is not None and has_states(teacher)
        student, teacher = lay_out_states(student), None if teacher is None else lay_out_states(teacher)
        tallest = max((stage.shape[2] for outputs in (student, teacher) if outputs is not None for stage in _maps(outputs)), default=1)
        shapes = (
            shapes_of(student, tallest, sequences=of_texts[0]),
            None if teacher is None else shapes_of(teacher, tallest, sequences=of_texts[1]),
        )
        objective = Blueprint(spec, data, pairing, label_smoothing, seed).build(*shapes)
        super().__init__(spec, objective.to(**module_kind(_first(student))), epochs, process_group)

    def forward(self, student: Outputs, teacher: Outputs | None, targets: Tensor, index: Tensor | None = None) -> Losses:
        """The losses of a batch: `total` is what to minimise, `parts` are its terms before their weights, by name (`ce` first).

        teacher: None where nothing is read of it; its gradient is not computed. targets, index: as for `kdzoo.Distiller`.
        Raises InputError for what a method reads and was not given.
        """
        needs = self.objective.needs
        for role, outputs, need in (("student", student, needs.student.outputs), ("teacher", teacher, needs.teacher.outputs)):
            lacks = need & OF_A_NETWORK & ~(Need.NOTHING if outputs is None else provides(outputs))
            if lacks:
                raise InputError(f"{role}: expected outputs with {describe(need & OF_A_NETWORK)}, but {describe(lacks)} is missing")
        constant = None if teacher is None else lay_out_states(teacher).map(_constant)
        return self._losses(lay_out_states(student).map(Tensor.contiguous), constant, None, targets, index)

    def parameter_groups(self, *, lr: float, weight_decay: float = 0.0) -> list[dict[str, Any]]:
        """Groups for an optimiser: the methods' parameters, with the rates and decays that these declare."""
        return self._groups([], lr, weight_decay)

    def deployed(self, student: Outputs) -> Tensor:
        """The class scores (B, K) of the student as it ships: its own, or what a method makes of its outputs (simkd)."""
        deployed = self.objective.deployed(nn.Identity())
        return deployed.logits_of(student) if isinstance(deployed, Deployed) else student.logits


def _constant(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous()


def provides(outputs: Outputs) -> Need:
    """What outputs have."""
    return reduce(or_, (need for need, value in outputs.items() if value is not None), Need.NOTHING)


def shapes_of(outputs: Outputs, tallest: int, *, sequences: bool = False) -> Shapes:
    """What a network's outputs measure; stages of a quarter of the `tallest` map's height count as reduced by 4.

    sequences: whether the stages are hidden states over the tokens of texts.
    """
    logits, embedding = outputs.get(Need.LOGITS), outputs.get(Need.EMBEDDING)
    classifier = outputs.get(Need.CLASSIFIER)
    return Shapes(
        classes=0 if logits is None else logits.shape[1],
        embedding=0 if embedding is None else embedding.shape[1],
        stages=tuple(StageShape(m.shape[1], m.shape[2], m.shape[3], tallest / m.shape[2]) for m in _maps(outputs)),
        preact=outputs.get(Need.PREACT) is not None,
        distilled=outputs.get(Need.DISTILLED) is not None,
        sequences=sequences,
        classifier=None if classifier is None else copy.deepcopy(classifier).requires_grad_(False).eval(),
    )


def _maps(outputs: Outputs) -> Sequence[Tensor]:
    """The maps of the stages, before or after their last activation; raises InputError for what is none."""
    maps: Sequence[Tensor] = outputs.get(Need.STAGES) or outputs.get(Need.PREACT) or []
    if wrong := [tuple(one.shape) for one in maps if one.ndim != 4]:
        raise InputError(f"stages: expected maps (B, C, H, W), got {', '.join(map(str, wrong))}")
    return maps


def _first(outputs: Outputs) -> Tensor | None:
    """The first tensor of all outputs."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    outputs.map(note)
    return found[0] if found else None
