"""An epoch of a network's answers, run live or read from its cache, in blocks of one size."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdzoo.contract.needs import ALWAYS_CACHED, PER_SAMPLE, Need, NetworkNeeds, Pass
from kdzoo.contract.outputs import Outputs, with_passes
from kdzoo.contract.shapes import Shapes
from kdzoo.data.epoch import EpochPlan, Inputs
from kdzoo.data.loader import fetch_once
from kdzoo.data.split import Parts
from kdzoo.data.views import center, has_numbered_views, view_count
from kdzoo.models.network import Network
from kdzoo.models.placement import Placement, autocast
from kdzoo.runs.recipe import Recipe
from kdzoo.teachers.cache import TeacherCache, open_cache
from kdzoo.teachers.code import CODE_DIGEST
from kdzoo.teachers.columns import Column
from kdzoo.teachers.disk import folder_of, free_bytes

TOLERANCE = 1e-3
"""the largest relative difference between a cache and the living teacher; with a larger one it is another teacher's"""

LoadInputs = Callable[[Pass, Tensor], Tensor]
"""the inputs (B, C, H, W) of a pass at positions (B,) of an epoch's order"""
Forward = Callable[[Tensor], Outputs]
"""one forward of the teacher on at most a block of images"""


def block_size(parts: Parts, recipe: Recipe) -> int:
    """How many images a teacher is asked about at once, whatever a batch or a cache lacks."""
    return min(recipe.batch_size, len(parts.train.targets))


@torch.no_grad()
def ask(network: Network, need: Need, images: Tensor, size: int, recipe: Recipe) -> Outputs:
    """What a network says of at most a block of `size` images, contiguous.

    A short batch is filled up to a block, laid out anew: the last bits of an answer depend on how many images are asked
    about at once and on their strides, and an answer must be the same whether it is remembered or not.
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
        size = block_size(self.plan.parts, self.plan.recipe)
        outputs = {which: ask(self.network, self.needs.outputs, inputs[which], size, self.plan.recipe) for which in self.needs.passes}
        return with_passes(outputs)


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
        return with_passes({which: self._ask(which, positions, inputs[which]) for which in self.needs.passes})

    def _ask(self, which: Pass, positions: Tensor, images: Tensor) -> Outputs:
        cache, rows, size = self.teacher_cache, self.rows[which][positions], block_size(self.plan.parts, self.plan.recipe)
        outputs = ask(self.network, self.needs.outputs | cache.need, images, size, self.plan.recipe)
        if not cache.full and not bool(cache.known[rows].all()):
            cache.write(rows, outputs)
        return outputs.restrict_to(self.needs.outputs)


@dataclass
class CachedAnswers:
    """Answers of one epoch from a cache: the rows of every pass, by position in the epoch's order, from `begin` on.

    load_inputs: None where images depend on more than sample and view, so that only a batch's own images can fill its rows.
    A row that is missing is computed with the next missing ones of the epoch, so that every block is full.
    needs: what is read. modules: what is read that no cache holds (the classifier, the network itself).
    """

    teacher_cache: TeacherCache
    rows: Mapping[Pass, Tensor]
    needs: NetworkNeeds
    forward: Forward
    load_inputs: LoadInputs | None
    begin: int = 0
    modules: Mapping[Need, Any] = field(default_factory=dict)
    missing: dict[Pass, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for which, rows in self.rows.items():
            known = self.teacher_cache.known[rows[self.begin :]]
            self.missing[which] = (self.begin + (~known).nonzero().flatten()).tolist()[::-1]
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
        known = self.teacher_cache.known[rows[self.begin :]].nonzero()
        if not len(known):
            return None
        block = self.teacher_cache.block
        start = (self.begin + int(known[0])) // block * block
        return torch.arange(start, min(start + block, len(rows)))

    def relative_error(self, positions: Tensor, images: Tensor) -> float:
        """How far the cache stands from the living teacher on what it knows of a batch, relative to the largest value of a column."""
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
    size, rows = block_size(plan.parts, plan.recipe), {}
    for number, which in enumerate(passes):
        if which in plan.passes:
            views = plan.view_indices(which)
            rows[which] = teacher_cache.rows(plan.samples_at(which), plan.epoch * len(passes) + number if views is None else views)
    begin = first * plan.recipe.batch_size
    ahead = torch.cat([of_pass[begin:] for of_pass in rows.values()])
    teacher_cache.take_over(ahead)
    has_room = teacher_cache.reserve(ahead[~teacher_cache.known[ahead]])
    if needs.outputs & PER_SAMPLE & ~teacher_cache.need:
        teacher_cache.lookups += len(ahead)
        return RecordedAnswers(network, needs, plan, teacher_cache, rows)
    if not has_room and not bool(teacher_cache.known[ahead].all()):
        teacher_cache.lookups += len(ahead)
        return LiveAnswers(network, needs, plan)
    return CachedAnswers(
        teacher_cache,
        rows,
        needs,
        forward=lambda images: ask(network, teacher_cache.need, images, size, plan.recipe),
        load_inputs=None if plan.recipe.mixes else plan.inputs_at,
        begin=begin,
        modules=network.parts(needs.outputs),
    )


def is_another_teachers(answers: CachedAnswers, plan: EpochPlan) -> bool:
    """Whether the cache differs from the living teacher on the first batch of which it knows anything."""
    positions = answers.first_known()
    return positions is not None and answers.relative_error(positions, plan.inputs_at(Pass.FIRST, positions)) > TOLERANCE


def cache_rows(parts: Parts, recipe: Recipe, passes: Pass) -> tuple[int, int]:
    """How many samples a cache has rows of, and how many rows it has of each: views, or epochs and passes where views are endless."""
    views = view_count(recipe.augment) if has_numbered_views(recipe) else None
    return len(parts.train.targets), recipe.drawn_epochs * len(passes) if views is None else views


def uncached(need: Need, shapes: Shapes, parts: Parts, recipe: Recipe, passes: Pass, execution: Placement) -> Need:
    """What is read (`need`) of a network of these shapes and too large for its cache, so that it is run in every step."""
    samples, views = cache_rows(parts, recipe, passes)
    needed = samples * views * sum(column.row_bytes for column in Column.expected(shapes, need))
    limit = execution.options.teacher_cache
    free = free_bytes(folder_of({}, "any"), execution.device) if limit is None else limit
    return need & PER_SAMPLE & ~ALWAYS_CACHED if needed > free else Need.NOTHING


def open_teacher_cache(
    network: Network,
    name: str,
    identity: str,
    need: Need,
    passes: Pass,
    parts: Parts,
    recipe: Recipe,
    seed: int,
    execution: Placement,
) -> TeacherCache | str | None:
    """The cache of what is read (`need`) of a network; a reason (str) why there is none, or None where none is wanted.

    passes: all for which it may be asked, in the order in which the cache numbers them.
    """
    if execution.options.teacher_cache == 0 or not need & PER_SAMPLE:
        return None
    block = block_size(parts, recipe)
    samples, views = cache_rows(parts, recipe, passes)
    about: dict[str, Any] = {
        "teacher": identity,
        "code": CODE_DIGEST,
        "data": parts.origin,
        "augment": recipe.augment.model_dump(mode="json"),
        "precision": recipe.precision,
        "block": block,
        **execution.arithmetic,
    }
    if not has_numbered_views(recipe):
        about |= {"seed": seed, "epochs": recipe.drawn_epochs, "passes": [str(which.name) for which in passes]}
    if recipe.mixes:
        about |= {"mixing": [recipe.mixup, recipe.cutmix, recipe.mix_prob], "numpy": np.__version__}  # which draws the shares
        if Pass.PARTNER in passes:  # what is mixed with what then depends on the labels
            about["labels"] = hashlib.sha256(parts.train.targets.numpy().tobytes()).hexdigest()
    images = center(fetch_once(parts.train.images, torch.arange(block), execution.device), recipe.augment)
    outputs = ask(network, need | ALWAYS_CACHED, images, block, recipe)
    return open_cache(
        about,
        name,
        Column.of(outputs, need | ALWAYS_CACHED),
        need,
        samples=samples,
        views=views,
        block=block,
        device=execution.device,
        limit=execution.options.teacher_cache,
    )
