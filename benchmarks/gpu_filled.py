"""The ways to keep a GPU busy with small students, by their steps, and whole epochs by the best of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import speed_kdzoo as ours
from speed import EPOCH_IMAGES, FLOOR, Make
from speed_clock import LeftOut, spend
from speed_setup import Precision, Setup

from kdzoo.data.views import view_count

Record = dict[str, Any]
EPOCHS = 240
"""of the published recipe, to which what is measured is multiplied"""
LARGEST_SWEEP = 27
"""runs over which targets are amortised: a larger stack would be another sweep's"""


@dataclass(frozen=True)
class Way:
    """How so many runs of a sweep are trained: as a stack or one after the other, their steps replayed as graphs or as they come."""

    runs: int
    stack: bool = False
    graphs: bool = False

    def __str__(self) -> str:
        kind = {(False, False): "warm", (False, True): "graphs", (True, False): "stacked", (True, True): "stacked_graphs"}
        return f"kdzoo_{kind[self.stack, self.graphs]} of {self.runs}"


@dataclass(frozen=True)
class Filling:
    """The ways that are measured of one pair at one batch size; one run as it comes is always among them.

    graphs, stacks, stacked_graphs: so many runs each. seconds, epochs_seconds: how long the ways' steps, and the whole epochs,
    take on a large GPU; epochs_seconds is None where no epochs are measured.
    """

    pair: str
    batch: int
    precision: Precision
    graphs: tuple[int, ...]
    stacks: tuple[int, ...]
    stacked_graphs: tuple[int, ...]
    seconds: float
    epochs_seconds: float | None = None

    @property
    def name(self) -> str:
        return f"{self.pair} at {self.batch} in {self.precision}"

    @property
    def ways(self) -> list[Way]:
        return [
            Way(1),
            *(Way(runs, graphs=True) for runs in self.graphs),
            *(Way(runs, stack=True) for runs in self.stacks),
            *(Way(runs, stack=True, graphs=True) for runs in self.stacked_graphs),
        ]

    def setup(self, setups: Sequence[Setup]) -> Setup:
        """The setup of this pair, at this batch size and in this precision."""
        own = next(setup for setup in setups if setup.pair == self.pair)
        return replace(own, batch=self.batch, precision=self.precision)


FIRST, SECOND = "resnet56/resnet20", "resnet32x4/resnet8x4"
FILLINGS = (
    Filling(FIRST, 128, "bfloat16", (1, 9, 27), (8, 27, 64), (8, 27, 64), 60, 25),
    Filling(SECOND, 128, "bfloat16", (1, 27), (8,), (8, 27), 40, 25),
    Filling(FIRST, 64, "bfloat16", (1, 27), (), (8, 27), 35, 30),
    Filling(FIRST, 128, "float32", (1, 9, 27), (8, 27, 64), (8, 27, 64), 55),
)
"""the most telling first"""


def filled_cell(filling: Filling, setup: Setup, measured: Callable[[Setup, Mapping[str, Make]], Record]) -> Record:
    """Steps of every way under a teacher whose answers are remembered, of the student and of the teacher alone."""
    sides = {str(way): partial(ours.by_way, runs=way.runs, stack=way.stack, graphs=way.graphs) for way in filling.ways}
    found = measured(setup, {**FLOOR, **sides})
    return {**found, "precision": filling.precision, "channels_last": ours.channels_last(setup)}


def whole_epochs(filling: Filling, setup: Setup, cell: Record | None) -> Record:
    """Epochs over all training images of a run alone and of a sweep, each by the way whose steps were the fastest in its cell."""
    asked = epochs_that_ask(setup)
    ways, left_out = {}, {}
    for way in fastest(filling, cell):
        try:
            ways[str(way)] = epochs_of(way, setup, asked)
        except LeftOut as why:
            left_out[str(way)] = str(why)
    about = {"pair": setup.pair, "batch": setup.batch, "precision": filling.precision, "epochs_that_ask": asked}
    return {**about, "ways": ways, "left_out": left_out}


def epochs_of(way: Way, setup: Setup, asked: float) -> Record:
    """Seconds of an epoch of all runs of a way, once with a teacher that is asked for every image and once with one that is not.

    asked: of EPOCHS epochs, how many ask it.
    """
    cohort = ours.cohort_by_way(setup, way.runs, stack=way.stack, graphs=way.graphs, limit=None)
    new, again, steps = ours.trained(cohort), ours.trained(cohort, replay=True), cohort.steps_an_epoch
    try:
        spend(new, steps, setup.device)  # in the first epoch steps are recorded, and memory is taken
        if cohort.graphs is not None and (notes := cohort.graphs.new_notes()):
            raise LeftOut(notes[0])
        cold, images = spend(new, steps, setup.device)
        spend(again, steps, setup.device)  # whose answers are remembered from here on
        warm, seen_again = spend(again, steps, setup.device)
    finally:
        new.close()
    cold_epoch, warm_epoch = cold * EPOCH_IMAGES / images, warm * EPOCH_IMAGES / seen_again
    return {
        "runs": way.runs,
        "cold_epoch_seconds": cold_epoch,
        "warm_epoch_seconds": warm_epoch,
        "seconds_for_240_epochs": (asked * cold_epoch + (EPOCHS - asked) * warm_epoch) / way.runs,
    }


def epochs_that_ask(setup: Setup) -> float:
    """Epochs' worth of images for which a remembered teacher is asked in EPOCHS epochs of V views a sample: V (1 - (1 - 1/V)^EPOCHS)."""
    views = view_count(setup.recipe().augment)
    return float(EPOCHS) if views is None else views * (1 - (1 - 1 / views) ** EPOCHS)


def fastest(filling: Filling, cell: Record | None) -> list[Way]:
    """The way with the shortest step for a run alone, and for a run of a sweep of at most LARGEST_SWEEP; without a cell the likely ones."""
    if cell is None:
        return [Way(1, graphs=True), Way(LARGEST_SWEEP, stack=True, graphs=True)]
    of = {way: cell["sides"][str(way)]["seconds_for_240_epochs"] for way in filling.ways if str(way) in cell["sides"]}
    alone, sweep = ([way for way in of if least <= way.runs <= most] for least, most in ((1, 1), (2, LARGEST_SWEEP)))
    return [min(ways, key=of.__getitem__) for ways in (alone, sweep) if ways]
