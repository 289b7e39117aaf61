"""The methods' side of a training loop of a user's own: losses, progress, state, parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdzoo.contract.batch import Batch, Losses
from kdzoo.contract.build_objective import build_objective, terms_of
from kdzoo.contract.joint import ProcessGroup, join, world_size
from kdzoo.contract.method import Method, ParamGroup
from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need, Pass
from kdzoo.contract.objective import Objective
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts, Shapes, UnknownFacts
from kdzoo.distiller.clock import LoopClock, validate_share
from kdzoo.distiller.request import compared_classes
from kdzoo.distiller.targets import check_labels, check_sizes, labels_of
from kdzoo.errors import InputError, collect_problems
from kdzoo.models.stages import pair_stages
from kdzoo.runs.spec import ObjectiveSpec, Pairing

CALLS = "calls"
"""the key under which a method's state says how many batches its losses were computed of, from which its random draws go on"""


class MethodLosses(nn.Module):
    """What every distilling module has: the weighted sum, with the methods' trainable parts as submodules."""

    def __init__(self, spec: ObjectiveSpec, objective: Objective, epochs: int | None, group: ProcessGroup | None) -> None:
        super().__init__()
        cards = [REGISTRY.get(term.method).card for term in spec.terms]
        self.objective = objective
        self._refuses_shares = {card.name: card.refuses_mixing for card in cards if card.refuses_mixing}
        self._reads_labels = [card.name for card in cards if card.needs.targets or Pass.PARTNER in card.needs.student]
        self._reads_joint_batch = not all(card.per_sample for card in cards)
        self._group = group
        self._epochs = epochs
        self._share: float | None = None
        self._calls = 0

    @property
    def progress(self) -> float | None:
        """The share of training that is done, 0 to 1, for weights and temperatures that change during it; None until it is set."""
        return self._share

    @progress.setter
    def progress(self, share: float) -> None:
        validate_share(share)
        self._share = float(share)

    def method_state_dict(self) -> dict[str, Any]:
        """The state of the methods' own modules, without the student's: a loop saves it beside the student to resume."""
        return {**self.objective.parts.state_dict(), CALLS: torch.tensor(self._calls)}

    def load_method_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state of `method_state_dict`; raises RuntimeError, as torch does, for the state of other modules."""
        self.objective.parts.load_state_dict({key: value for key, value in state.items() if key != CALLS})
        self._calls = int(state[CALLS])

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self._calls)

    def set_extra_state(self, state: Tensor) -> None:
        self._calls = int(state)

    def _groups(self, own: list[nn.Parameter], lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for an optimiser: `own` parameters, then the methods' as these declare."""
        groups = [ParamGroup(own)] if own else []
        return [
            {
                "params": list(group.parameters),
                "lr": lr * group.lr,
                "weight_decay": weight_decay if group.weight_decay is None else group.weight_decay,
            }
            for group in (*groups, *self.objective.groups())
        ]

    def _losses(self, student: Outputs, teacher: Outputs | None, inputs: Tensor | None, targets: Tensor, index: Tensor | None) -> Losses:
        """The weighted sum of one batch, in float32 at least, under autocast too.

        Values of targets are looked at on a CPU, and on a GPU for the first batch alone: a look makes the host wait.
        """
        hard, soft = labels_of(targets, self._refuses_shares)
        check_sizes(hard, student=student, teacher=teacher)
        if (logits := student.get(Need.LOGITS)) is not None and (hard.device.type == "cpu" or not self._calls):
            check_labels(hard, soft, logits.shape[1], self._reads_labels)
        batch = Batch(
            inputs=hard.new_empty(0) if inputs is None else inputs,  # which only methods that call the networks themselves read
            targets=hard,
            soft_targets=soft,
            index=_index(index, hard),
            clock=LoopClock(self._calls, self._share, self._epochs),
            generator=torch.Generator(hard.device),
        )
        together = self._reads_joint_batch and self.training and world_size(self._group) > 1
        self.objective.joint = join(len(hard), hard.device, self._group) if together else None
        with torch.autocast(hard.device.type, enabled=False):
            losses: Losses = self.objective(student, teacher, batch)
        self._calls += self.training
        return losses


def _index(index: Tensor | None, targets: Tensor) -> Tensor | None:
    """The positions of the batch's samples in the training set, where the targets are."""
    if index is None:
        return None
    if not isinstance(index, Tensor) or index.shape != targets.shape or index.is_floating_point():
        got = f"{index.dtype} of shape {tuple(index.shape)}" if isinstance(index, Tensor) else repr(index)
        raise InputError(f"index: expected the position of each of {len(targets)} samples in the training set, (B,) int64, got {got}")
    return index.to(targets.device, torch.int64)


def facts_or_unknown(data: DataFacts | None, classes: int) -> DataFacts:
    """The facts of the training data, which may be unknown; raises InputError where they do not fit the class scores."""
    if data is None:
        return UnknownFacts()
    if not isinstance(data, DataFacts):
        raise InputError(f"data: expected kdzoo.DataFacts(samples, classes, targets), got {data!r}")
    problems = []
    if not isinstance(data.targets, Tensor) or data.targets.ndim != 1 or data.targets.dtype != torch.int64:
        problems.append(f"data.targets: expected class numbers (N,) int64, a tensor, got {_kind_of(data.targets)}")
    elif len(data.targets) != data.samples:
        problems.append(f"data.targets: expected as many as samples, {data.samples}, got {len(data.targets)}")
    elif len(data.targets) and int(data.targets.max()) >= data.classes:
        problems.append(f"data.targets: expected class numbers below {data.classes}, got {int(data.targets.max())}")
    if data.classes != classes:
        problems.append(f"data.classes: expected {classes}, as many as the student's class scores, got {data.classes}")
    if problems:
        raise InputError(*problems)
    return data


@dataclass(frozen=True)
class Blueprint:
    """What a weighted sum with its methods' modules is built from, but for the shapes of the two networks' outputs."""

    spec: ObjectiveSpec
    data: DataFacts | None
    pairing: Pairing
    label_smoothing: float
    seed: int

    @property
    def reads_shapes(self) -> list[str]:
        """The methods that build modules for the networks' widths, or add to the student that ships."""
        methods = [REGISTRY.get(term.method) for term in self.spec.terms]
        return [method.card.name for method in methods if method.build is not Method.build or method.card.deploys]

    def build(self, student: Shapes, teacher: Shapes | None) -> Objective:
        """The sum with freshly made modules; raises InputError with every method that cannot serve these networks or data."""
        problems = list(compared_classes(self.spec, student.classes, teacher.classes)) if teacher else []
        objective: Objective | None = None
        with collect_problems(problems):
            facts = facts_or_unknown(self.data, student.classes)
            stages = pair_stages(student, teacher or student, self.pairing)
            objective = build_objective(self.spec, student, teacher, stages, facts, label_smoothing=self.label_smoothing, seed=self.seed)
        if problems or objective is None:
            raise InputError(*problems)
        return objective

    def build_without_shapes(self) -> Objective:
        """A sum whose methods get their modules when the first batch shows the shapes."""
        terms = terms_of(self.spec)
        nothing = {term.name: nn.Module() for term in terms}
        return Objective(self.spec.task, terms, nothing, stages=(), label_smoothing=self.label_smoothing, seed=self.seed)


def module_kind(like: Tensor | None) -> dict[str, Any]:
    """The device and the precision of methods' modules beside a parameter or an output: float64 beside one of float64, else float32."""
    if like is None:
        return {"device": torch.device("cpu"), "dtype": torch.float32}
    return {"device": like.device, "dtype": torch.float64 if like.dtype == torch.float64 else torch.float32}


def _kind_of(value: Any) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def validate_epochs(epochs: int | None) -> None:
    """Raises InputError for anything but None or a whole number from 1 on."""
    if epochs is not None and (isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1):
        raise InputError(f"epochs: expected a whole number >= 1, got {epochs!r}")
