"""The plan of an epoch: the order, views, mixes and partners of its samples, drawn in one place, and the images themselves.

All of it is a pure function of (seed, epoch, sample), so that it depends neither on batches nor on where training was
resumed. A cohort and its teacher read the same plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import Tensor

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.needs import PASS_KINDS, Pass
from kdzoo.data.loader import fetch, fetch_once
from kdzoo.data.mixing import MixPlan, draw_mixes, mix, soft_targets
from kdzoo.data.split import Splits
from kdzoo.data.views import Views, apply_views, draw_views, has_numbered_views, output_shape, view_number
from kdzoo.runs.recipe import Recipe, steps_per_epoch
from kdzoo.seeds import generator

Inputs = dict[Pass, Tensor]
"""the images of a batch for each pass"""


@dataclass(frozen=True)
class LoadedBatch:
    """A batch before augmentation: its positions in the epoch's order (B,) on the CPU, its samples (B,) and their images by pass."""

    positions: Tensor
    index: Tensor
    images: Inputs


@dataclass(frozen=True)
class PassPlan:
    """What a pass shows in place of every training sample: the index of a sample (N,), and its view."""

    samples: Tensor
    views: Views


class EpochPlan:
    """The order of an epoch's samples, and what each pass shows of them, on a device.

    passes: those that are drawn; the first always is. A position is a place in `order`. `epoch` is the one that is drawn,
    which repeats after `recipe.view_epochs`.
    """

    def __init__(self, splits: Splits, recipe: Recipe, seed: int, epoch: int, passes: Pass, device: torch.device | str = "cpu") -> None:
        self.splits = splits
        self.recipe = recipe
        self.seed = seed
        self.epoch = recipe.drawn_as(epoch)
        self.device = torch.device(device)
        self.steps = steps_per_epoch(self.samples, recipe.batch_size, drop_last=recipe.drop_last)
        self.order = order(self.samples, seed, self.epoch)[: self.steps * recipe.batch_size]
        """the sample at each position, (P,) int64 on the CPU"""
        self.passes = {which: self._draw(which) for which in Pass.FIRST | passes}
        self.mixes = self._draw_mixes()
        self._targets = splits.train.targets.to(self.device)

    @property
    def samples(self) -> int:
        return len(self.splits.train.targets)

    def _draw(self, which: Pass) -> PassPlan:
        height, width = self.splits.train.images.shape[2:]
        targets = self.splits.train.targets  # in one column: methods that read partners are refused where there are several
        samples = partners(targets, self.seed, self.epoch) if which is Pass.PARTNER else torch.arange(self.samples)
        stream = PASS_KINDS[which].stream
        views = draw_views(
            self.recipe.augment, samples=self.samples, height=height, width=width, seed=self.seed, epoch=self.epoch, stream=stream
        )
        return PassPlan(samples.to(self.device), views.to(self.device))

    def _draw_mixes(self) -> MixPlan | None:
        height, width = output_shape(self.recipe.augment, *self.splits.train.images.shape[2:])
        mixes = draw_mixes(self.recipe, samples=self.samples, height=height, width=width, seed=self.seed, epoch=self.epoch)
        return None if mixes is None else mixes.to(self.device)

    def batches(self, start: int = 0) -> Iterator[LoadedBatch]:
        """The batches of the epoch from number `start` on, read ahead.

        A second view is of the first pass's images, which are not read again.
        """
        images, size = self.splits.train.images, self.recipe.batch_size
        loaded = {which: one.samples.to(images.device) for which, one in self._loaded_passes().items()}
        order_here, order_there = self.order.to(self.device), self.order.to(images.device)
        indices = (samples[index] for index in cut_batches(order_there, size, self.steps, start) for samples in loaded.values())
        with closing(fetch(images, indices, self.device)) as images_in_turn:
            for number, index in enumerate(cut_batches(order_here, size, self.steps, start), start):
                positions = torch.arange(number * size, number * size + len(index))
                yield LoadedBatch(positions, index, {which: next(images_in_turn) for which in loaded})

    def load(self, positions: Tensor) -> LoadedBatch:
        """The samples at `positions` (B,) with their images, read now."""
        index = self.order[positions].to(self.device)
        images = self.splits.train.images
        return LoadedBatch(
            positions, index, {which: fetch_once(images, one.samples[index], self.device) for which, one in self._loaded_passes().items()}
        )

    def _loaded_passes(self) -> dict[Pass, PassPlan]:
        return {which: one for which, one in self.passes.items() if PASS_KINDS[which].own_images}

    def gather(self, loaded: LoadedBatch, clock: Progress) -> tuple[Inputs, Batch]:
        """The images of a batch as each pass augments and mixes them, and the batch itself, on the device."""
        index, images = loaded.index, loaded.images
        inputs: Inputs = {which: self._augment(which, index, images.get(which, images[Pass.FIRST])) for which in self.passes}
        targets, mixes = self._targets[index], self.mixes
        return inputs, Batch(
            inputs=inputs[Pass.FIRST],
            targets=targets,
            soft_targets=None if mixes is None else soft_targets(targets, mixes, index, self.splits.facts.classes),
            index=index,
            clock=clock,
            generator=torch.Generator(self.device),
        )

    def inputs_at(self, which: Pass, positions: Tensor) -> Tensor:
        """The inputs of one pass at `positions` (B,), (B, C, H, W) uint8; a whole batch where images are mixed."""
        index = self.order[positions].to(self.device)
        images = fetch_once(self.splits.train.images, self.passes[which].samples[index], self.device)
        return self._augment(which, index, images)

    def _augment(self, which: Pass, index: Tensor, images: Tensor) -> Tensor:
        one = self.passes[which]
        augmented = apply_views(images, one.views, one.samples[index], self.recipe.augment)
        return augmented if self.mixes is None else mix(augmented, self.mixes, index)

    def samples_at(self, which: Pass) -> Tensor:
        """The sample that a pass shows at each position, (P,) int64 on the CPU; of a mix the one that counts as the sample."""
        return self.order if self.recipe.mixes else self.passes[which].samples.cpu()[self.order]

    def view_indices(self, which: Pass) -> Tensor | None:
        """The number of the view at each position of a pass, (P,) int64 on the CPU; None where views have no numbers."""
        if not has_numbered_views(self.recipe):
            return None
        indices = view_number(self.passes[which].views, self.recipe.augment)
        assert indices is not None
        return indices.cpu()[self.samples_at(which)]


def order(samples: int, seed: int, epoch: int) -> Tensor:
    """The order of the samples in an epoch, a permutation (samples,) int64."""
    return torch.randperm(samples, generator=generator(seed, "order", epoch))


def batches(
    samples: int,
    batch_size: int,
    seed: int,
    epoch: int,
    start: int = 0,
    device: torch.device | str = "cpu",
    *,
    drop_last: bool = False,
) -> Iterator[Tensor]:
    """The index tensors of an epoch's batches from number `start` on; the device gets them all at once."""
    steps = steps_per_epoch(samples, batch_size, drop_last=drop_last)
    yield from cut_batches(order(samples, seed, epoch).to(device), batch_size, steps, start)


def cut_batches(order: Tensor, size: int, steps: int, start: int = 0) -> Iterator[Tensor]:
    """The batches of an order from number `start` on."""
    for number in range(start, steps):
        yield order[number * size : (number + 1) * size]


def partners(targets: Tensor, seed: int, epoch: int) -> Tensor:
    """For each sample another of its class, each of them equally likely; itself where it has no other. (N,) int64."""
    by_class = targets.argsort(stable=True)
    rank = torch.empty_like(by_class)
    rank[by_class] = torch.arange(len(targets))
    which = targets + 1  # those without a label are a class of their own
    counts = torch.bincount(which)
    start, count = (counts.cumsum(0) - counts)[which], counts[which]
    share = torch.rand(len(targets), generator=generator(seed, "partner", epoch), dtype=torch.float64)
    step = 1 + (share * (count - 1)).long().clamp(max=(count - 2).clamp(min=0))
    return by_class[start + (rank - start + step) % count]
