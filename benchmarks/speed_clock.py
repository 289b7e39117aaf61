"""How sides are timed: in turns, for so many seconds each, medians over the rounds; and what their first steps hold in memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

Made = TypeVar("Made")


class LeftOut(Exception):
    """A side that cannot be measured here, and why."""


@dataclass(frozen=True)
class Side:
    """One way to train. `step` does one batch and returns how many images it had; `runs` is how many runs that advances.

    settle: steps before a round counts, as many as a loader has batches in stock when its turn comes; a side whose one
    step fills a round needs none. hits: the share of the teacher's answers that were remembered, None without a cache.
    """

    step: Callable[[], int]
    runs: int = 1
    settle: int = 1
    close: Callable[[], None] = lambda: None
    hits: Callable[[], float | None] = lambda: None


@dataclass(frozen=True)
class Timing:
    """Seconds that one batch of `batch` images took in each round of `steps` steps, and the peak of memory in bytes."""

    runs: int
    batch: int
    steps: int
    seconds: tuple[float, ...]
    memory: int | None = None
    hits: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def per_run(self) -> float:
        """Seconds of one batch of one run."""
        return self.median / self.runs

    @property
    def images_per_second(self) -> float:
        """Training images a second, all runs together."""
        return self.runs * self.batch / self.median

    def record(self, epoch_images: int) -> dict[str, Any]:
        return {
            "runs": self.runs,
            "steps_a_round": self.steps,
            "step_seconds": self.median,
            "step_seconds_of_rounds": list(self.seconds),
            "images_per_second": self.images_per_second,
            "seconds_per_run_and_epoch": self.per_run * epoch_images / self.batch,
            "memory_bytes": self.memory,
            "cache_hits": self.hits,
        }


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def spend(side: Side, steps: int, device: torch.device) -> tuple[float, int]:
    """Seconds and images of so many steps."""
    synchronise(device)
    began = time.perf_counter()
    images = sum(side.step() for _ in range(steps))
    synchronise(device)
    return time.perf_counter() - began, images


def steps_for(side: Side, seconds: float, device: torch.device) -> int:
    """How many steps fill a round, judged by a few after warm-up; one at least."""
    steps, spent = 1, 0.0
    while True:
        spent, _ = spend(side, steps, device)
        if spent > 0.2 * seconds or steps >= 64:
            return max(1, round(seconds * steps / spent))
        steps *= 2


def alternate(
    sides: Mapping[str, Side], *, batch: int, repeats: int, seconds: float, device: torch.device, memory: Mapping[str, int]
) -> dict[str, Timing]:
    """Time every side in every round, each round beginning with another one, so that a drift of the machine meets all."""
    steps = {name: steps_for(side, seconds, device) for name, side in sides.items()}
    names, found = list(sides), {name: list[float]() for name in sides}
    for number in range(repeats):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if steps[name] > 1:
                spend(sides[name], sides[name].settle, device)
            spent, images = spend(sides[name], steps[name], device)
            found[name].append(spent * batch / images)
    return {name: Timing(side.runs, batch, steps[name], tuple(found[name]), memory.get(name), side.hits()) for name, side in sides.items()}


def with_peak(act: Callable[[], Made], device: torch.device) -> tuple[Made, int]:
    """What `act` gives, and the most bytes that torch held during it above what it held before.

    On a CPU from the allocations that the profiler sees, in this process alone.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        made = act()
        torch.cuda.synchronize(device)
        return made, torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        made = act()
    assert seen.profiler is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return made, peak


def close(sides: Sequence[Side]) -> None:
    for side in sides:
        side.close()
