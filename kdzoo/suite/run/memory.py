"""How much memory runs will take, and whether there is as much where they are trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from kdzoo.contract.methods import REGISTRY
from kdzoo.models.network import Network
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.recipe import Recipe
from kdzoo.runs.spec import Run
from kdzoo.suite.plan.cohorts import make_jobs
from kdzoo.suite.plan.planned import Plan, PlannedRun
from kdzoo.suite.run.disk_space import STATES
from kdzoo.suite.run.free_memory import COHORT_SHARE, memory_of_cohort
from kdzoo.suite.run.untrained import Untrained, bind
from kdzoo.teachers.disk import size_text
from kdzoo.text import number_of, one_line
from kdzoo.training.cost import saved_bytes
from kdzoo.training.located import LocatedRun
from kdzoo.training.run_data import input_shape

PROBED = (2, 4)
"""the batches of which it is counted what autograd saves: their difference is that of images, without what is the same for any batch"""


class MemoryNeeds:
    """Bytes of runs in training, counted on untrained networks; each kind of student is tried once.

    Weights, gradients, the optimiser's state, what the backward needs of every image of a batch, and the teacher's weights. What a
    method adds is left out, and so are the images and the teacher's outputs that are kept.
    """

    def __init__(self, plan: Plan, options: WorkerOptions, untrained: Untrained) -> None:
        self._plan, self._options, self._untrained = plan, options, untrained
        self._images: dict[tuple[str, str], int | str] = {}

    def unknown(self, runs: Iterable[PlannedRun]) -> list[str]:
        """Of which students the memory cannot be counted, and why, a line each: none of their runs can be asked for."""
        located = (bind(planned, self._plan) for planned in runs)
        faults = {one.run.student.name: size for one in located if isinstance(size := self._count(one), str)}
        return [f"{name}: {fault}" for name, fault in faults.items()]

    def of_run(self, planned: PlannedRun) -> int:
        """The student's part of a run's memory; raises ValueError where that is unknown."""
        located = bind(planned, self._plan)
        network, _ = self._untrained.student(located)
        recipe = planned.run.recipe
        copies = 2 + STATES[recipe.optimizer] + (recipe.ema is not None)  # the weights, gradients, the optimiser's state, the average
        part = -(-recipe.batch_size // self._options.processes_per_run)
        of_image = self._count(located)
        if isinstance(of_image, str):
            raise ValueError(of_image)
        return copies * _bytes_of(network) + _passes(planned.run) * part * of_image

    def of_teacher(self, planned: PlannedRun) -> int:
        """The weights of a run's teacher, which a cohort shares."""
        teacher = self._untrained.teacher(bind(planned, self._plan))
        return _bytes_of(teacher[0]) if teacher is not None and isinstance(teacher[0], Network) else 0

    def of_largest_cohort(self, missing: Iterable[PlannedRun], processes: int) -> int:
        """The memory of the cohort that takes most, of which no more than fits is trained at once."""
        runs = {one.run.id: one for one in missing}
        largest = 0
        for job in make_jobs(runs.values(), self._plan, self._options, processes):
            if job.kind == "students":
                needs = [self.of_run(runs[run_id]) for run_id in job.ids]
                teacher = max(self.of_teacher(runs[run_id]) for run_id in job.ids)
                largest = max(largest, teacher + max(max(needs), min(sum(needs), memory_of_cohort(self._options))))
        return largest

    def _count(self, located: LocatedRun) -> int | str:
        """What autograd saves of an image in a forward pass of a run's student, in bytes; why that cannot be counted."""
        key = str(located.run.student), str(located.run.recipe)
        if key not in self._images:
            dataset, _ = self._untrained.data(located)
            network, _ = self._untrained.student(located)
            shape = input_shape(dataset, located.run.recipe)
            try:
                small, large = (_saved(network, count, shape) for count in PROBED)
            except Exception as error:  # what is wrong with it is told, with its traceback, when it is trained
                self._images[key] = f"a batch of {PROBED[0]} or {PROBED[1]} images fails ({one_line(str(error)) or type(error).__name__})"
            else:
                self._images[key] = int((large - small) / (PROBED[1] - PROBED[0]) * _width(located.run.recipe))
        return self._images[key]


def _saved(network: Network, count: int, shape: tuple[int, int, int]) -> int:
    """Bytes that autograd saves in a forward pass of so many images, after which the network is as it was."""
    state, mode = {name: value.clone() for name, value in network.state_dict().items()}, network.training
    network.train()
    try:
        with torch.random.fork_rng(devices=[]), saved_bytes() as storages:
            scores = network.logits(torch.zeros(count, *shape, dtype=torch.uint8, device=network.mean.device))
            del scores
    finally:
        network.load_state_dict(state)
        network.train(mode)
    return sum(storages.values())


def _passes(run: Run) -> int:
    """How many forward passes of the student a step keeps until its backward."""
    return max((len(REGISTRY.get(term.method).card.needs.student.passes) for term in run.objective.terms), default=1) or 1


def _width(recipe: Recipe) -> float:
    """What a number of an activation takes, beside one of float32."""
    return 1.0 if recipe.precision == "float32" else 0.5


def _bytes_of(network: Network) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in [*network.parameters(), *network.buffers()])


def free_for_process(options: WorkerOptions) -> int:
    """Bytes that each process may take of what is free where runs are trained."""
    return int(memory_of_cohort(options) / COHORT_SHARE)


def memory_notes(
    plan: Plan, missing: Sequence[PlannedRun], options: WorkerOptions, processes: int, untrained: Untrained
) -> tuple[str, ...]:
    """Notes where a run by itself needs more memory than a process has, or where nobody knows what it needs; none where every run fits."""
    needs = MemoryNeeds(plan, options, untrained)
    if unknown := needs.unknown(missing):
        return tuple(f"how much memory its runs take is not known, and not checked: {fault}" for fault in unknown)
    note = _note_of_largest(needs, missing, options, processes)
    return () if note is None else (note,)


def _note_of_largest(needs: MemoryNeeds, missing: Iterable[PlannedRun], options: WorkerOptions, processes: int) -> str | None:
    """A note on the run that needs most memory, where that is more than a process has."""
    free = free_for_process(options)
    largest: tuple[int, PlannedRun] | None = None
    for planned in missing:
        size = needs.of_run(planned) + needs.of_teacher(planned)
        if size > free and (largest is None or size > largest[0]):
            largest = size, planned
    if largest is None:
        return None
    size, planned = largest
    run, each = planned.run, number_of(processes, "process", "processes")
    fewer = "fewer processes (--jobs 1) or " if processes > 1 else ""
    return (
        f"{run.student.name} with batches of {run.recipe.batch_size} will take about {size_text(size)} in training, and "
        f"{size_text(free)} are free on {options.device} for each of {each}: it may run out of memory; "
        f"take {fewer}a smaller batch (--set recipe.batch_size=...)"
    )
