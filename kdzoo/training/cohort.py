"""Runs in lockstep: the data and the teacher that they share, and what all of them see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from kdzoo.contract.needs import Need
from kdzoo.data.epoch import STREAMS, EpochPlan
from kdzoo.data.split import Parts
from kdzoo.models.measure import NetworkCost
from kdzoo.models.network import Network
from kdzoo.models.placement import Execution
from kdzoo.runs.spec import Recipe, steps_per_epoch
from kdzoo.teachers.cache import TeacherCache
from kdzoo.training.batched import Together
from kdzoo.training.evaluate import Metrics
from kdzoo.training.member import Member


@dataclass(frozen=True)
class Teacher:
    """A frozen network, what it costs, and what it says of the validation and test images.

    identity: a digest of its weights, its code, and all else that decides what it says of an image. weights_digest: of its
    weights alone, which tells one training of it from another. notes: what there is to tell of how its predictions were had.
    """

    network: Network
    name: str
    identity: str
    weights_digest: str
    cost: NetworkCost
    val: Tensor | None
    test: Tensor
    val_metrics: Metrics | None
    test_metrics: Metrics
    test_per_class: Mapping[str, list[Any]]
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "weights_digest": self.weights_digest,
            "parameters": self.cost.parameters,
            "macs": self.cost.macs,
            "val": self.val_metrics,
            "test": {**self.test_metrics, **self.test_per_class},
        }


@dataclass
class Cohort:
    """Runs in lockstep: the data and the teacher they share, and the members that have not failed."""

    members: list[Member]
    parts: Parts
    teacher: Teacher | None
    execution: Execution
    teacher_cache: TeacherCache | None = None
    together: Together | None = None

    @property
    def alive(self) -> list[Member]:
        return [member for member in self.members if member.failure is None]

    @property
    def alone(self) -> list[Member]:
        """The members that are trained one after the other."""
        return [member for member in self.alive if self.together is None or member not in self.together.members]

    def said(self, member: Member) -> tuple[Tensor | None, Tensor | None]:
        """What the member's teacher says of the validation and the test images; nothing where it has none."""
        if self.teacher is None or member.run.teacher is None:
            return None, None
        return self.teacher.val, self.teacher.test

    @property
    def recipe(self) -> Recipe:
        return self.members[0].run.recipe

    @property
    def seed(self) -> int:
        return self.members[0].run.seed

    @property
    def steps_an_epoch(self) -> int:
        return steps_per_epoch(len(self.parts.train.targets), self.recipe.batch_size, drop_last=self.recipe.drop_last)

    @property
    def block(self) -> int:
        """The images that the teacher is asked about at once, whatever a batch or the cache lacks."""
        return min(self.recipe.batch_size, len(self.parts.train.targets))

    @property
    def passes(self) -> list[Need]:
        """The passes for which the teacher is asked: the first, and those that a member, failed or not, reads of it."""
        return [which for which in STREAMS if not which or any(which in member.objective.needs.teacher for member in self.members)]

    @property
    def taught(self) -> Need:
        """The union of what the members read of the teacher."""
        need = Need.NOTHING
        for member in self.alive:
            need |= member.objective.needs.teacher
        return need

    def plan_epoch(self, epoch: int) -> EpochPlan:
        """The order of an epoch, and what each pass that a member reads shows of its samples."""
        passes = [which for which in STREAMS if any(which in member.need | member.objective.needs.teacher for member in self.alive)]
        return EpochPlan(self.parts, self.recipe, self.seed, epoch, passes, self.execution.device)
