"""Runs in lockstep: the data and the teacher that they share, and what all of them see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from kdzoo.contract.outputs import Batch, Need, Progress
from kdzoo.data.dataset import Pixels
from kdzoo.data.epoch import batches, partners
from kdzoo.data.loader import fetch
from kdzoo.data.mixing import Mixes, draw_mixes, mix, soft_targets
from kdzoo.data.split import Parts
from kdzoo.data.views import Views, apply, draw, seen_shape
from kdzoo.models.network import Network, NetworkCost
from kdzoo.models.placement import Execution
from kdzoo.runs.spec import Recipe, steps_per_epoch
from kdzoo.teachers.cache import Memo
from kdzoo.training.batched import Together
from kdzoo.training.evaluate import Metrics
from kdzoo.training.member import Member, Seen

STREAMS = {Need.NOTHING: "view", Need.SECOND_VIEW: "second view", Need.PARTNER: "partner view"}
"""the passes of a step and the random streams of their augmentation; Need.NOTHING is the first"""


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
    test_per_class: Mapping[str, list[int]]
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
    height: int
    width: int
    teacher: Teacher | None
    execution: Execution
    memo: Memo | None = None
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
        """The images that the teacher is asked about at once, whatever a batch or the memo lacks."""
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

    @cached_property
    def targets(self) -> Tensor:
        """The labels of the training images, on the device."""
        return self.parts.train.targets.to(self.execution.device)

    def looks_of(self, epoch: int) -> dict[Need, Look]:
        """How every training sample looks in an epoch; once more, independently, for each other pass that is read."""
        epoch = self.recipe.drawn_as(epoch)
        samples = torch.arange(len(self.parts.train.targets))
        height, width = seen_shape(self.recipe.augment, self.height, self.width)
        mixes = draw_mixes(self.recipe, samples=len(samples), height=height, width=width, seed=self.seed, epoch=epoch)
        return {
            need: Look(
                partners(self.parts.train.targets, self.seed, epoch) if need is Need.PARTNER else samples,
                draw(
                    self.recipe.augment,
                    samples=len(samples),
                    height=self.height,
                    width=self.width,
                    seed=self.seed,
                    epoch=epoch,
                    stream=stream,
                ),
                mixes,
            )
            for need, stream in STREAMS.items()
            if not need or any(need in member.need | member.objective.needs.teacher for member in self.alive)
        }

    def batches_of(self, epoch: int, looks: Mapping[Need, Look], start: int) -> Iterator[tuple[Tensor, Seen]]:
        """The index tensors of an epoch's batches from number `start` on, each with the images of `shown_by`."""
        samples, recipe = len(self.parts.train.targets), self.recipe
        drawn = partial(batches, samples, recipe.batch_size, self.seed, recipe.drawn_as(epoch), start, drop_last=recipe.drop_last)
        images = self.parts.train.images
        shown = {need: samples.to(images.device) for need, samples in shown_by(looks).items()}
        asked = (samples[index] for index in drawn(images.device) for samples in shown.values())
        with closing(fetch(images, asked, self.execution.device)) as fetched:
            for index in drawn(self.execution.device):
                yield index, {need: next(fetched) for need in shown}


@dataclass(frozen=True)
class Look:
    """What a pass sees of an epoch: for every training sample the index of the one that is shown, how all look, and how
    they are mixed, which is the same for all passes; None where they are not."""

    samples: Tensor
    views: Views
    mixes: Mixes | None

    def to(self, device: torch.device) -> Look:
        return Look(self.samples.to(device), self.views.to(device), self.mixes and self.mixes.to(device))


def shown_by(looks: Mapping[Need, Look]) -> dict[Need, Tensor]:
    """The samples that each pass shows, without the second view's, which are those of the first pass."""
    return {need: look.samples for need, look in looks.items() if need is not Need.SECOND_VIEW}


def gather_batch(cohort: Cohort, index: Tensor, images: Seen, looks: Mapping[Need, Look], clock: Progress) -> tuple[Seen, Batch]:
    """The `images` of a batch as each pass augments and mixes them, and the batch itself; all is on the device."""
    seen: Seen = {need: changed(cohort, look, index, images.get(need, images[Need.NOTHING])) for need, look in looks.items()}
    targets, mixes = cohort.targets[index], looks[Need.NOTHING].mixes
    return seen, Batch(
        inputs=seen[Need.NOTHING],
        targets=targets,
        soft_targets=None if mixes is None else soft_targets(targets, mixes, index, cohort.parts.facts.classes),
        index=index,
        clock=clock,
        generator=torch.Generator(cohort.execution.device),
    )


def shown(cohort: Cohort, look: Look, index: Tensor) -> Tensor:
    """What a pass shows at the samples `index` (B,), which are a whole batch where images are mixed: (B, C, H, W) uint8."""
    samples = look.samples[index]
    return changed(cohort, look, index, images_at(cohort.parts.train.images, samples, cohort.execution.device))


def changed(cohort: Cohort, look: Look, index: Tensor, images: Tensor) -> Tensor:
    """The images of the samples `index` as a pass augments and mixes them."""
    seen = apply(images, look.views, look.samples[index], cohort.recipe.augment)
    return seen if look.mixes is None else mix(seen, look.mixes, index)


def images_at(images: Pixels, index: Tensor, device: torch.device) -> Tensor:
    """Images (B, C, H, W) uint8 that nobody has read ahead."""
    return next(fetch(images, [index.to(images.device)], device))
