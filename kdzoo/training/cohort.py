"""Runs in lockstep: the data and the teacher that they share, and what all of them see."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass, replace

from torch import Tensor

from kdzoo.contract.needs import MAPS, Need, NetworkNeeds, Pass
from kdzoo.contract.shapes import Shapes
from kdzoo.data.epoch import WHOLE, EpochPlan, Shard
from kdzoo.data.split import Splits
from kdzoo.models.placement import Placement
from kdzoo.runs.recipe import Recipe, steps_per_epoch
from kdzoo.teachers.answers import block_size, cached_answers
from kdzoo.teachers.cache import TeacherCache
from kdzoo.teachers.open_cache import open_teacher_cache, outputs_beyond_cache
from kdzoo.teachers.teacher import Answers, LiveTeacher, Teacher
from kdzoo.training.batched import BatchedMembers
from kdzoo.training.graphs import Learner, StepGraphs
from kdzoo.training.member import Member
from kdzoo.training.processes import Processes


@dataclass
class Cohort:
    """Runs in lockstep: the data and the teacher they share, and the members that have not failed.

    processes: those that train them together, where these are several.
    """

    members: list[Member]
    splits: Splits
    teacher: Teacher | None
    execution: Placement
    teacher_cache: TeacherCache | None = None
    batched: BatchedMembers | None = None
    graphs: StepGraphs | None = None
    processes: Processes | None = None

    @property
    def shard(self) -> Shard:
        """The part of every batch that is this process's."""
        return WHOLE if self.processes is None else self.processes.shard

    @property
    def writes(self) -> bool:
        """Whether this process writes what is kept of the runs."""
        return self.processes is None or self.processes.writes

    def share(self, processes: Processes) -> None:
        """Train the members together with other processes, in which the same members are in the same state."""
        self.processes = processes
        for member in self.members:
            member.share(processes)

    @property
    def active(self) -> list[Member]:
        return [member for member in self.members if member.failure is None]

    @property
    def unbatched(self) -> list[Member]:
        """The members that are trained one after the other."""
        return [member for member in self.active if self.batched is None or member not in self.batched.members]

    @property
    def learners(self) -> list[Learner]:
        """What takes a step by itself: the stack of those that are trained as one, and each other member."""
        return [*([] if self.batched is None else [self.batched]), *self.unbatched]

    def teacher_predictions(self, member: Member) -> tuple[Tensor | None, Tensor | None]:
        """The log-probabilities of the member's teacher on validation images and on test images; None where they are missing."""
        if self.teacher is None or member.run.teacher is None:
            return None, None
        return self.teacher.val, self.teacher.test

    @property
    def recipe(self) -> Recipe:
        return self.members[0].run.recipe

    @property
    def last_epoch(self) -> int:
        """How many epochs the members are trained for: all of the recipe's, or as many as the options ask for."""
        return min(self.execution.options.until or self.recipe.epochs, self.recipe.epochs)

    @property
    def seed(self) -> int:
        return self.members[0].run.seed

    @property
    def steps_an_epoch(self) -> int:
        return steps_per_epoch(len(self.splits.train.targets), self.recipe.batch_size, drop_last=self.recipe.drop_last)

    @property
    def block(self) -> int:
        """How many images a teacher's forward takes, however many a batch or the cache lacks."""
        return block_size(self.splits, self.recipe, self.shard)

    @property
    def teacher_passes(self) -> Pass:
        """The passes whose teacher outputs are needed: the first, and every one that a member reads, also a failed one."""
        return functools.reduce(operator.or_, (member.objective.needs.teacher.passes for member in self.members), Pass.FIRST)

    @property
    def teacher_needs(self) -> NetworkNeeds:
        """The union of what the members read of the teacher."""
        return functools.reduce(operator.or_, (member.objective.needs.teacher for member in self.active), NetworkNeeds(Need.NOTHING))

    def open_teacher_cache(self) -> TeacherCache | str | None:
        """The cache of what the members read of their teacher; a reason (str) why there is none, or None where none is wanted."""
        if not isinstance(self.teacher, LiveTeacher):
            return None
        return open_teacher_cache(
            self.teacher.network,
            self.teacher.name,
            self.teacher.identity,
            self.teacher_needs.outputs,
            self.teacher_passes,
            self.splits,
            self.recipe,
            self.seed,
            self.execution,
            self.shard,
        )

    def split_by_cache(self, shapes: Shapes | None) -> list[Cohort]:
        """This cohort; where the maps that some members read of the teacher do not fit into its cache, these apart and first.

        They need the live teacher in every step, and fill the cache for the others, who then need it no more. shapes: of the
        teacher's outputs.
        """
        if shapes is None or not isinstance(self.teacher, LiveTeacher) or self.execution.options.teacher_cache == 0:
            return [self]
        if not outputs_beyond_cache(self.teacher_needs.outputs, shapes, self.splits, self.recipe, self.teacher_passes, self.execution):
            return [self]
        reading = [member for member in self.members if member.objective.needs.teacher.outputs & MAPS]
        others = [member for member in self.members if member not in reading]
        return [replace(self, members=members) for members in (reading, others) if members]

    def open_answers(self, plan: EpochPlan, first: int = 0) -> Answers | None:
        """The teacher's answers for an epoch from its batch number `first` on; None where no member reads any."""
        if self.teacher is None or not self.teacher_needs:
            return None
        if self.teacher_cache is not None and isinstance(self.teacher, LiveTeacher):
            return cached_answers(self.teacher.network, self.teacher_cache, plan, self.teacher_needs, self.teacher_passes, first)
        return self.teacher.open_epoch(plan, self.teacher_needs)

    def plan_epoch(self, epoch: int) -> EpochPlan:
        """The order of an epoch, and what each pass that a member reads shows of its samples."""
        passes = functools.reduce(operator.or_, (member.needs.passes for member in self.active), self.teacher_needs.passes)
        return EpochPlan(self.splits, self.recipe, self.seed, epoch, passes, self.execution.device, self.shard)
