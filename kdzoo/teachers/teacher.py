"""The port of a teacher: what it is, its predictions for whole parts of the data, and where its answers for an epoch come from.

A live teacher is a network that is run; a saved one (`saved`) is a file of answers. The training step knows no difference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from kdzoo.contract.needs import Need, NetworkNeeds
from kdzoo.contract.outputs import Outputs
from kdzoo.data.dataset import Subset
from kdzoo.data.epoch import EpochPlan, Inputs
from kdzoo.data.split import Splits, labelled_subset
from kdzoo.models.identity import identity
from kdzoo.models.measure import NetworkCost
from kdzoo.models.network import Network
from kdzoo.models.placement import Placement
from kdzoo.models.predict import batch_of, predict
from kdzoo.runs.recipe import Augment
from kdzoo.runs.seals import tensors_digest
from kdzoo.tasks.multitask import for_teacher
from kdzoo.tasks.task import Metrics, Task
from kdzoo.teachers.answers import LiveAnswers
from kdzoo.teachers.code import CODE_DIGEST
from kdzoo.teachers.predictions import Predictions, predictions

NETWORK_OUTPUTS = Need(sum(need.value for need in Need)) & ~Need.TARGETS
"""the outputs that networks may have; its shapes say which of them a network has"""


class Answers(Protocol):
    """A teacher's outputs for the samples of one epoch, at positions of its plan's order."""

    def at(self, positions: Tensor, inputs: Inputs) -> Outputs:
        """The outputs for a batch, those of further passes beside the first's. inputs: what each pass shows, on the device."""


@dataclass(frozen=True, kw_only=True)
class Teacher(ABC):
    """A frozen teacher and its predictions of the validation and the test images, None where it has none.

    identity: a digest of all that decides its outputs. weights_digest: of its weights, or of its file, alone,
    which tells one training of it from another. notes: what there is to tell of how its predictions were had. task: its students',
    for one that may score some of the columns of targets alone.
    """

    name: str
    identity: str
    weights_digest: str
    cost: NetworkCost | None
    val: Tensor | None
    test: Tensor | None
    val_metrics: Metrics | None
    test_metrics: Metrics | None
    test_per_class: Mapping[str, list[Any]]
    task: Task
    notes: tuple[str, ...] = ()

    @property
    @abstractmethod
    def offers(self) -> Need:
        """The outputs that it can give."""

    @abstractmethod
    def open_epoch(self, plan: EpochPlan, needs: NetworkNeeds) -> Answers:
        """The outputs of an epoch that are read."""

    @abstractmethod
    def check_predictions(self, splits: Splits, augment: Augment, execution: Placement) -> tuple[Tensor, Tensor]:
        """Its predictions (N, K) for labelled training images, and their targets (N,)."""

    @property
    def passes_cost(self) -> bool:
        """Whether each pass of a step runs a network of it."""
        return False

    @property
    def bytes(self) -> int:
        """What it holds on the device beside a student."""
        return 0

    def record(self) -> dict[str, Any]:
        """What a result keeps of it."""
        return {
            "name": self.name,
            "weights_digest": self.weights_digest,
            "parameters": self.cost and self.cost.parameters,
            "macs": self.cost and self.cost.macs,
            "val": self.val_metrics,
            "test": None if self.test_metrics is None else {**self.test_metrics, **self.test_per_class},
            "saved": None,
        }


@dataclass(frozen=True, kw_only=True)
class LiveTeacher(Teacher):
    """A frozen network that is run on what its students see."""

    network: Network

    @property
    def offers(self) -> Need:
        return NETWORK_OUTPUTS

    def open_epoch(self, plan: EpochPlan, needs: NetworkNeeds) -> LiveAnswers:
        return LiveAnswers(self.network, needs, plan)

    def check_predictions(self, splits: Splits, augment: Augment, execution: Placement) -> tuple[Tensor, Tensor]:
        part = labelled_subset(splits)
        return predict(self.network, part, augment, execution.device, self.task), part.targets

    @property
    def passes_cost(self) -> bool:
        return True

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in [*self.network.parameters(), *self.network.buffers()])


def live_teacher(
    network: Network,
    name: str,
    cost: NetworkCost,
    splits: Splits,
    augment: Augment,
    execution: Placement,
    columns: tuple[str, ...] | None = None,
) -> LiveTeacher:
    """A frozen network with its predictions on validation and test, computed once for all its students, in other sessions too.

    columns: which of several columns of targets it scores; None for all.
    """
    task = splits.task if columns is None else for_teacher(splits.task, columns)
    subsets: dict[str, Subset] = {"test": splits.test} | ({} if splits.val is None else {"val": splits.val})

    def compute() -> dict[str, Tensor]:
        return {part: predict(network, subset, augment, execution.device, task) for part, subset in subsets.items()}

    digest = identity(network)
    about = {
        "teacher": digest,
        "code": CODE_DIGEST,
        "data": splits.description,
        **({} if columns is None else {"columns": list(columns)}),
        **({"task": task.name} if task.of_features else {}),
        "size": augment.size,
        "block": {part: batch_of(network, subset, augment, execution.device) for part, subset in subsets.items()},
        **execution.arithmetic,
    }
    evaluation = Predictions(compute()) if execution.options.teacher_cache == 0 else predictions(about, name, compute)
    val, test = evaluation.by_part.get("val"), evaluation.by_part["test"]
    return LiveTeacher(
        network=network,
        task=task,
        name=name,
        identity=digest,
        weights_digest=tensors_digest(network.model.state_dict()),
        cost=cost,
        val=val,
        test=test,
        val_metrics=None if val is None or splits.val is None else splits.task.measure(val, splits.val.targets),
        test_metrics=splits.task.measure(test, splits.test.targets),
        test_per_class=splits.task.by_class(test, splits.test.targets),
        notes=evaluation.notes,
    )
