"""An epoch of a network's answers, run live or read from its cache, in blocks of one size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kdzoo.contract.needs import PER_SAMPLE, Need, NetworkNeeds, Pass
from kdzoo.contract.outputs import Outputs, with_passes
from kdzoo.data.epoch import WHOLE, EpochPlan, Inputs, Shard
from kdzoo.data.split import Splits
from kdzoo.models.network import Network
from kdzoo.models.placement import autocast
from kdzoo.runs.recipe import Recipe
from kdzoo.teachers.cache import TeacherCache

TOLERANCE = 1e-3
"""the largest relative difference between cached and live outputs; a cache with a larger one is another teacher's"""

LoadInputs = Callable[[Pass, Tensor], Tensor]
"""the inputs (B, C, H, W) of a pass at positions (B,) of an epoch's order"""
Forward = Callable[[Tensor], Outputs]
"""one forward of the teacher on at most a block of images"""


def block_size(splits: Splits, recipe: Recipe, shard: Shard = WHOLE) -> int:
    """How many images a teacher's forward takes, however many a batch or a cache lacks."""
    return shard.most(min(recipe.batch_size, len(splits.train.targets)))


@torch.no_grad()
def forward_block(network: Network, need: Need, images: Tensor, size: int, recipe: Recipe) -> Outputs:
    """The outputs of a network for at most a block of `size` images, contiguous.

    A short batch is filled up to a block, laid out anew: the last bits of an output depend on how many images are
    in a forward and on their strides, and an output must be the same whether it is cached or not.
    """
    block = images.new_empty((size, *images.shape[1:]))
    block[: len(images)] = images
    block[len(images) :] = images[-1]
    with autocast(recipe, images.device):
        outputs: Outputs = network(block, need)
    return outputs.map(lambda tensor: tensor[: len(images)].contiguous())


@dataclass(frozen=True)
class LiveAnswers:
    """Each batch is answered by a forward for each pass that is read."""

    network: Network
    needs: NetworkNeeds
    plan: EpochPlan

    def at(self, positions: Tensor, inputs: Inputs) -> Outputs:
        recipe, size = self.plan.recipe, block_size(self.plan.splits, self.plan.recipe, self.plan.shard)
        return with_passes(
            {which: forward_block(self.network, self.needs.outputs, inputs[which], size, recipe) for which in self.needs.passes}
        )


@dataclass(frozen=True)
class RecordedAnswers:
    """Each batch is answered by a forward, since some of what is read is in no cache; rows that others will read are written.

    rows: of the cache, for every pass, by position in the epoch's order.
    """

    network: Network
    needs: NetworkNeeds
    plan: EpochPlan
    teacher_cache: TeacherCache
    rows: Mapping[Pass, Tensor]

    def at(self, positions: Tensor, inputs: Inputs) -> Outputs:
        return with_passes({which: self._outputs(which, positions, inputs[which]) for which in self.needs.passes})

    def _outputs(self, which: Pass, positions: Tensor, images: Tensor) -> Outputs:
        cache, rows = self.teacher_cache, self.rows[which][positions]
        size = block_size(self.plan.splits, self.plan.recipe, self.plan.shard)
        outputs = forward_block(self.network, self.needs.outputs | cache.need, images, size, self.plan.recipe)
        if not cache.full and not bool(cache.known[rows].all()):
            cache.write(rows, outputs)
        return outputs.restrict_to(self.needs.outputs)


@dataclass
class CachedAnswers:
    """Answers of one epoch from a cache: the rows of every pass, by position in the epoch's order.

    ahead: the positions (M,) that will be asked for, ascending: all, or those of one shard. load_inputs: None where images
    depend on more than sample and view, so that only a batch's own images can fill its rows.
    A row that is missing is computed with the next missing ones of the epoch, so that every block is full.
    needs: what is read. modules: what is read that no cache holds (the classifier, the network itself).
    """

    teacher_cache: TeacherCache
    rows: Mapping[Pass, Tensor]
    needs: NetworkNeeds
    forward: Forward
    load_inputs: LoadInputs | None
    ahead: Tensor
    modules: Mapping[Need, Any] = field(default_factory=dict)
    missing: dict[Pass, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for which, rows in self.rows.items():
            known = self.teacher_cache.known[rows[self.ahead]]
            self.missing[which] = self.ahead[~known].tolist()[::-1]
            self.teacher_cache.lookups += len(known)
            self.teacher_cache.hits += int(known.sum())

    def at(self, positions: Tensor, inputs: Inputs) -> Outputs:
        """The outputs for a batch of consecutive positions; rows that are missing are computed first, for later batches too."""
        start = int(positions[0])
        outputs = {which: self._read(which, start, inputs[which]) for which in self.needs.passes}
        return with_passes(outputs)

    def _read(self, which: Pass, start: int, images: Tensor) -> Outputs:
        rows = self.rows[which][start : start + len(images)]
        missing, end = self.missing[which], start + len(images)
        if self.load_inputs is None and missing and missing[-1] < end:
            self.teacher_cache.write(rows, self.forward(images))
        elif self.load_inputs is not None:
            while missing and missing[-1] < end:
                positions = torch.tensor([missing.pop() for _ in range(min(self.teacher_cache.block, len(missing)))])
                own = torch.equal(positions, torch.arange(start, end))  # which have been fetched and augmented already
                inputs = images if own else self.load_inputs(which, positions)
                self.teacher_cache.write(self.rows[which][positions], self.forward(inputs))
        while missing and missing[-1] < end:
            missing.pop()
        return Outputs.of({**self.teacher_cache.read(rows), **self.modules}, owner="network").restrict_to(self.needs.outputs)

    def first_known(self) -> Tensor | None:
        """The positions of the first batch of the first pass of which anything is known; None where nothing is."""
        rows = self.rows[Pass.FIRST]
        known = self.ahead[self.teacher_cache.known[rows[self.ahead]]]
        if not len(known):
            return None
        block = self.teacher_cache.block
        start = int(known[0]) // block * block
        return torch.arange(start, min(start + block, len(rows)))

    def relative_error(self, positions: Tensor, images: Tensor) -> float:
        """The largest difference between cached and live outputs of a batch, relative to the largest value of a column."""
        rows = self.rows[Pass.FIRST][positions]
        known = self.teacher_cache.known[rows]
        cached, live = Outputs.of(self.teacher_cache.read(rows), owner="teacher cache"), self.forward(images)
        return max(max_relative_difference(column.value(cached)[known], column.value(live)[known]) for column in self.teacher_cache.columns)


def max_relative_difference(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest value; infinite where one of the two is no number."""
    apart = float((one.float() - other.float()).abs().max() / other.float().abs().max().clamp(min=1e-6))
    return math.inf if math.isnan(apart) else apart


def cached_answers(
    network: Network, teacher_cache: TeacherCache, plan: EpochPlan, needs: NetworkNeeds, passes: Pass, first: int = 0
) -> CachedAnswers | RecordedAnswers | LiveAnswers:
    """The answers of an epoch from its batch number `first` on, read from a cache as far as that holds all that is read.

    passes: all that the cache numbers, in the order of their numbers, whether or not they are still read.
    """
    size, rows = block_size(plan.splits, plan.recipe, plan.shard), {}
    for number, which in enumerate(passes):
        if which in plan.passes:
            views = plan.view_indices(which)
            rows[which] = teacher_cache.rows(plan.samples_at(which), plan.epoch * len(passes) + number if views is None else views)
    ahead = torch.cat([plan.positions(number) for number in range(first, plan.steps)])
    read = torch.cat([of_pass[ahead] for of_pass in rows.values()])
    teacher_cache.check_rows(read)
    has_room = teacher_cache.reserve(read[~teacher_cache.known[read]])
    if needs.outputs & PER_SAMPLE & ~teacher_cache.need:
        teacher_cache.lookups += len(read)
        return RecordedAnswers(network, needs, plan, teacher_cache, rows)
    if not has_room and not bool(teacher_cache.known[read].all()):
        teacher_cache.lookups += len(read)
        return LiveAnswers(network, needs, plan)
    return CachedAnswers(
        teacher_cache,
        rows,
        needs,
        forward=lambda images: forward_block(network, teacher_cache.need, images, size, plan.recipe),
        load_inputs=None if plan.recipe.mixes else plan.inputs_at,
        ahead=ahead,
        modules=network.parts(needs.outputs),
    )


def is_another_teachers(answers: CachedAnswers, plan: EpochPlan) -> bool:
    """Whether the cache differs from the live teacher on the first batch of which any row is known."""
    positions = answers.first_known()
    return positions is not None and answers.relative_error(positions, plan.inputs_at(Pass.FIRST, positions)) > TOLERANCE
