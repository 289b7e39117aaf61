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
from kdzoo.data.copies import send
from kdzoo.data.loader import fetch, fetch_once
from kdzoo.data.mixing import MixPlan, draw_mixes, mix, soft_targets
from kdzoo.data.split import Splits
from kdzoo.data.views import Views, apply_views, draw_views, has_numbered_views, output_shape, view_number
from kdzoo.runs.recipe import Recipe, steps_per_epoch
from kdzoo.runs.spec import Normalisation
from kdzoo.seeds import generator

Inputs = dict[Pass, Tensor]
"""the images of a batch for each pass"""


@dataclass(frozen=True)
class Shard:
    """The part of every batch that one of several processes has which train together; all of it where there is one."""

    rank: int = 0
    count: int = 1

    def cut(self, start: int, end: int) -> tuple[int, int]:
        """Where this part of the positions from `start` to `end` begins and ends: parts follow each other, and differ by one at most."""
        size = end - start
        return start + size * self.rank // self.count, start + size * (self.rank + 1) // self.count

    def sizes(self, size: int) -> list[int]:
        """How many of so many samples each process has."""
        cuts = [Shard(rank, self.count).cut(0, size) for rank in range(self.count)]
        return [end - start for start, end in cuts]

    def most(self, size: int) -> int:
        """The largest of these parts."""
        return -(-size // self.count)


WHOLE = Shard()


@dataclass(frozen=True)
class LoadedBatch:
    """A batch before augmentation: its positions in the epoch's order (B,) on the CPU, its samples (B,) and their images by pass.

    on_host: the samples whose images these are, on the CPU. size: the samples of the whole batch, of which other processes may
    have a part. before: the sample (1,) with which the first one is mixed, where another process has that; its images then
    stand before the others.
    """

    positions: Tensor
    index: Tensor
    images: Inputs
    on_host: Tensor
    size: int
    before: Tensor | None = None


@dataclass(frozen=True)
class PassPlan:
    """What a pass shows in place of every training sample: the index of a sample (N,), on the CPU too, and its view."""

    samples: Tensor
    on_host: Tensor
    views: Views


class EpochPlan:
    """The order of an epoch's samples, and what each pass shows of them, on a device.

    passes: those that are drawn; the first always is. A position is a place in `order`. `epoch` is the one that is drawn,
    which repeats after `recipe.view_epochs`. shard: of which part of every batch `batches` gives the images; the plan itself is the
    same in all processes.
    """

    def __init__(
        self,
        splits: Splits,
        recipe: Recipe,
        seed: int,
        epoch: int,
        passes: Pass,
        device: torch.device | str = "cpu",
        shard: Shard = WHOLE,
    ) -> None:
        self.splits = splits
        self.recipe = recipe
        self.seed = seed
        self.epoch = recipe.drawn_as(epoch)
        self.device = torch.device(device)
        self.shard = shard
        self.steps = steps_per_epoch(self.samples, recipe.batch_size, drop_last=recipe.drop_last)
        self.order = order(self.samples, seed, self.epoch)[: self.steps * recipe.batch_size]
        """the sample at each position, (P,) int64 on the CPU"""
        self.passes = {which: self._draw(which) for which in Pass.FIRST | passes}
        self.mixes = self._draw_mixes()
        self._targets = splits.train.targets.to(self.device)
        self._generator = torch.Generator(self.device)  # of a batch, in whose place every method gets one of its own

    @property
    def samples(self) -> int:
        return len(self.splits.train.targets)

    def _draw(self, which: Pass) -> PassPlan:
        height, width = self.splits.train.images.shape[2:]
        targets = self.splits.train.targets  # in one column: methods that read partners are refused where there are several
        samples = partners(targets, self.seed, self.epoch) if which is Pass.PARTNER else torch.arange(self.samples)
        stream = PASS_KINDS[which].stream
        views = draw_views(
            self.recipe.augment,
            samples=self.samples,
            height=height,
            width=width,
            seed=self.seed,
            epoch=self.epoch,
            stream=stream,
            norm=norm_of(self.recipe, self.splits),
        )
        return PassPlan(samples.to(self.device), samples, views.to(self.device))

    def _draw_mixes(self) -> MixPlan | None:
        height, width = output_shape(self.recipe.augment, *self.splits.train.images.shape[2:])
        mixes = draw_mixes(self.recipe, samples=self.samples, height=height, width=width, seed=self.seed, epoch=self.epoch)
        return None if mixes is None else mixes.to(self.device)

    def positions(self, number: int) -> Tensor:
        """The positions of this shard in batch `number`, (B,) int64 on the CPU."""
        return torch.arange(*self._own(number))

    def _bounds(self, number: int) -> tuple[int, int]:
        """Where batch `number` begins and ends in the order."""
        size = self.recipe.batch_size
        return number * size, min((number + 1) * size, len(self.order))

    def _own(self, number: int) -> tuple[int, int]:
        """The same of this shard's part of the batch."""
        return self.shard.cut(*self._bounds(number))

    def _before(self, number: int) -> int | None:
        """The position with whose image the shard's first one is mixed in batch `number`; None where the shard is the whole batch."""
        if self.mixes is None or self.shard == WHOLE:
            return None
        first, end = self._bounds(number)
        start, _ = self._own(number)
        return start - 1 if start > first else end - 1

    def batches(self, start: int = 0) -> Iterator[LoadedBatch]:
        """The shard's part of the batches of the epoch from number `start` on, read ahead.

        A second view is of the first pass's images, which are not read again.
        """
        images, numbers = self.splits.train.images, range(start, self.steps)
        loaded = {which: one.samples.to(images.device) for which, one in self._loaded_passes().items()}
        order_here, order_there = self.order.to(self.device), self.order.to(images.device)
        indices = (samples[self._read_of(order_there, number)] for number in numbers for samples in loaded.values())
        with closing(fetch(images, indices, self.device)) as images_in_turn:
            for number in numbers:
                first, end = self._bounds(number)
                before = self._before(number)
                yield LoadedBatch(
                    self.positions(number),
                    order_here[slice(*self._own(number))],
                    {which: next(images_in_turn) for which in loaded},
                    self._read_of(self.order, number),
                    size=end - first,
                    before=None if before is None else order_here[before : before + 1],
                )

    def _read_of(self, order: Tensor, number: int) -> Tensor:
        """The samples of an order whose images are read for batch `number`."""
        own, before = order[slice(*self._own(number))], self._before(number)
        return own if before is None else torch.cat([order[before : before + 1], own])

    def load(self, positions: Tensor) -> LoadedBatch:
        """The samples at `positions` (B,) with their images, read now."""
        on_host = self.order[positions]
        index, images = send(on_host, self.device), self.splits.train.images
        by_pass = {which: fetch_once(images, one.samples[index], self.device) for which, one in self._loaded_passes().items()}
        return LoadedBatch(positions, index, by_pass, on_host, size=len(positions))

    def _loaded_passes(self) -> dict[Pass, PassPlan]:
        return {which: one for which, one in self.passes.items() if PASS_KINDS[which].own_images}

    def gather(self, loaded: LoadedBatch, clock: Progress) -> tuple[Inputs, Batch]:
        """The images of a batch as each pass augments and mixes them, and the batch itself, on the device."""
        mixes, images = self.mixes, loaded.images
        read = loaded.index if loaded.before is None else torch.cat([loaded.before, loaded.index])
        own = slice(len(read) - len(loaded.index), None)
        inputs: Inputs = {
            which: self._augment(which, read, loaded.on_host, images.get(which, images[Pass.FIRST]))[own] for which in self.passes
        }
        targets = self._targets[read]
        return inputs, Batch(
            inputs=inputs[Pass.FIRST],
            targets=targets[own],
            soft_targets=None if mixes is None else soft_targets(targets, mixes, read, self.splits.facts.classes)[own],
            index=loaded.index,
            clock=clock,
            generator=self._generator,
        )

    def inputs_at(self, which: Pass, positions: Tensor) -> Tensor:
        """The inputs of one pass at `positions` (B,), (B, C, H, W) uint8; a whole batch where images are mixed."""
        on_host = self.order[positions]
        index = send(on_host, self.device)
        images = fetch_once(self.splits.train.images, self.passes[which].samples[index], self.device)
        return self._augment(which, index, on_host, images)

    def _augment(self, which: Pass, index: Tensor, on_host: Tensor, images: Tensor) -> Tensor:
        one = self.passes[which]
        augmented = apply_views(images, one.views, one.samples[index], self.recipe.augment, one.on_host[on_host])
        return augmented if self.mixes is None else mix(augmented, self.mixes, index)

    def samples_at(self, which: Pass) -> Tensor:
        """The sample that a pass shows at each position, (P,) int64 on the CPU; of a mix the one that counts as the sample."""
        return self.order if self.recipe.mixes else self.passes[which].on_host[self.order]

    def view_indices(self, which: Pass) -> Tensor | None:
        """The number of the view at each position of a pass, (P,) int64 on the CPU; None where views have no numbers."""
        if not has_numbered_views(self.recipe):
            return None
        indices = view_number(self.passes[which].views, self.recipe.augment)
        assert indices is not None
        return indices.cpu()[self.samples_at(which)]


def norm_of(recipe: Recipe, splits: Splits) -> Normalisation:
    """The mean and deviation of the pixels by which views fill what is empty: the recipe's, else those of the data."""
    if recipe.mean is not None and recipe.std is not None:
        return Normalisation(mean=recipe.mean, std=recipe.std)
    return splits.norm


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
