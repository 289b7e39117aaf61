"""What a step costs a run alone: a probe of a few steps with a live teacher and nothing shared.

Passes, multiplications and bytes are counted, so they are the same whatever else a machine does. Processor time is given as
a multiple of the student alone's, measured in turn with it. Seconds of the clock stand beside them, and the milliseconds that
what ships takes for one image.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from kdzoo.contract import guard
from kdzoo.contract.batch import Progress
from kdzoo.contract.objective import Deployed
from kdzoo.data.views import output_shape
from kdzoo.models.measure import attention_as_products
from kdzoo.models.network import Network
from kdzoo.models.predict import predict
from kdzoo.training.cohort import Cohort
from kdzoo.training.latency import PROBE_SECONDS, milliseconds
from kdzoo.training.member import Member

COUNTED = 2
"""steps that are counted before any is timed: the first its bytes, the second its multiplications"""
TIMED = 5
ESTIMATE_STEPS = 10
ESTIMATE_SECONDS = 1.0
"""an estimate takes no further step of one kind of run once its steps took so long: one step of a large network can take seconds"""
EVALUATION_SECONDS = 0.2


@dataclass(frozen=True)
class StepSeconds:
    """A step of a lone member: what it would share with others of its cohort, images and the teacher's outputs, and its own part."""

    shared: float
    own: float


def step_seconds(cohort: Cohort) -> StepSeconds:
    """What a step of a lone member takes: medians over ESTIMATE_STEPS, or as many as fit into ESTIMATE_SECONDS.

    Processor time divided by the threads, on a GPU time by the clock. The probe trains the member. The first step, which
    warms up, counts only where it is the only one.
    """
    first, second = _halves(cohort)
    times = [(_time(first, cohort), _time(second, cohort))]
    while sum(clock for step in times for clock, _ in step) < ESTIMATE_SECONDS and len(times) <= ESTIMATE_STEPS:
        times.append((_time(first, cohort), _time(second, cohort)))
    threads = 1 if cohort.execution.device.type == "cuda" else torch.get_num_threads()
    shared, own = zip(*((shared[1], own[1]) for shared, own in times[1:] or times), strict=True)
    return StepSeconds(statistics.median(shared) / threads, statistics.median(own) / threads)


def evaluation_seconds(cohort: Cohort, member: Member) -> float:
    """What evaluating an image takes with a member's student as it ships: the median over some batches of test images.

    Processor time divided by the threads, on a GPU time by the clock, of a batch no larger than one in training. The first, which
    warms up, counts only where it is the only one: no further one is timed after EVALUATION_SECONDS.
    """
    recipe, device = cohort.recipe, cohort.execution.device
    test = cohort.splits.truncate_eval(recipe.batch_size).test
    evaluate = partial(predict, member.deployed, test, recipe.augment, device, cohort.splits.task)
    times = [_time(evaluate, cohort)]
    while sum(clock for clock, _ in times) < EVALUATION_SECONDS and len(times) <= TIMED:
        times.append(_time(evaluate, cohort))
    threads = 1 if device.type == "cuda" else torch.get_num_threads()
    return statistics.median(processor for _, processor in times[1:] or times) / threads / max(len(test.targets), 1)


def step_cost(cohort: Cohort, alone: Cohort | None = None) -> dict[str, Any]:
    """Cost of a lone member by names: passes and multiply-accumulates of a step, bytes at its peak, parameters, time.

    `cohort` has one fresh member that is thrown away afterwards: the probe trains it. So has `alone`, the same student on
    the same data without a method; with it the probe times both in turn and `time_ratio` is the median of their ratios,
    which is 1 for a student alone and None where there is nothing to compare with. The bytes are those of the parameters,
    gradients and optimiser state of student and objective, of the teacher's parameters, and of what autograd saves
    between forward and backward. `step_macs` are those of convolutions, matrix products and attention of a whole step:
    networks, losses, backward. `student_milliseconds` are of what ships, in evaluation mode.
    """
    (member,) = cohort.members
    step, step_alone = _stepper(cohort), None if alone is None else _stepper(alone)
    backwards = _count_backwards(member)
    with saved_bytes() as storages:
        step()
    with attention_as_products(), Multiplications() as multiplications:
        step()
    seconds, ratios = [], []
    if step_alone is not None:
        for _ in range(COUNTED):
            step_alone()
    for _ in range(TIMED):
        clock, processor = _time(step, cohort)
        seconds.append(clock)
        if step_alone is not None and alone is not None:
            ratios.append(processor / max(_time(step_alone, alone)[1], 1e-9))
    median = statistics.median(seconds)
    teacher = cohort.teacher if member.objective.needs.teacher else None
    passes = len(member.needs.passes)
    teacher_passes = len(member.objective.needs.teacher.passes) if teacher is not None and teacher.passes_cost else 0
    steps = cohort.steps_an_epoch * member.run.recipe.epochs
    teacher_bytes = 0 if teacher is None else teacher.bytes
    return {
        "step_seconds": median,
        "train_seconds": median * steps,
        "memory_bytes": sum(storages.values()) + _bytes_of(member) + teacher_bytes,
        "extra_parameters": sum(p.numel() for p in member.objective.parameters()),
        "views": passes,
        "student_passes": passes,
        "backward_passes": passes * backwards() // (COUNTED + TIMED),
        "teacher_passes": teacher_passes,
        "step_macs": multiplications.total,
        "train_macs": multiplications.total * steps,
        "time_ratio": statistics.median(ratios) if ratios else None if member.run.objective.terms else 1.0,
        "student_milliseconds": _milliseconds(cohort, member),
    }


def _milliseconds(cohort: Cohort, member: Member) -> float:
    """Of one image, through the student as it ships."""
    network = member.objective.deployed(member.network)
    assert isinstance(network, Network | Deployed)
    shape = output_shape(cohort.recipe.augment, *cohort.splits.test.images.shape[2:])
    return milliseconds(network, (cohort.splits.test.images.shape[1], *shape), 1, cohort.execution.device, PROBE_SECONDS)


def with_pretrain_stage(cost: dict[str, Any], first: dict[str, Any], share: float) -> dict[str, Any]:
    """The cost of a run and its pretrain stage, which took `share` times as many steps; None for what an earlier version did not record."""

    def total(name: str, factor: float = 1.0) -> Any:
        parts = cost.get(name), first.get(name)
        return None if None in parts else parts[0] + factor * parts[1]  # type: ignore[operator]

    return {
        **cost,
        "train_seconds": total("train_seconds"),
        "train_macs": total("train_macs", 1),
        "time_ratio": total("time_ratio", share),
    }


def _stepper(cohort: Cohort) -> Callable[[], None]:
    """One training step of a lone member, on the first batch of the first epoch."""
    first, second = _halves(cohort)

    def step() -> None:
        first()
        second()

    return step


def _halves(cohort: Cohort) -> tuple[Callable[[], None], Callable[[], None]]:
    """The two halves of a step of a lone member: the batch with the teacher's answers, then the member's losses and update."""
    (member,) = cohort.members
    clock = Progress(0, 1, 0, COUNTED + TIMED)
    plan = cohort.plan_epoch(0)
    loaded, answers = plan.load(torch.arange(cohort.block)), cohort.open_answers(plan)
    batches: list[tuple[Any, Any, Any]] = []

    def see() -> None:
        with guard.watch(f"the network of {member.run.id}, or the backward of its loss,"):
            inputs, batch = plan.gather(loaded, clock)
            batches.append((inputs, None if answers is None else answers.at(loaded.positions, inputs), batch))

    def learn() -> None:
        with guard.watch(f"the network of {member.run.id}, or the backward of its loss,"):
            inputs, teacher, batch = batches.pop()
            member.learn(member.losses(inputs, teacher, batch, loaded.size), len(loaded.index), clock.steps)

    return see, learn


def _time(step: Callable[[], object], cohort: Cohort) -> tuple[float, float]:
    """Seconds of the clock and of the processor that a step takes; on a GPU the clock's are both."""
    _synchronise(cohort)
    clock, processor = time.perf_counter(), time.process_time()
    step()
    _synchronise(cohort)
    seconds = time.perf_counter() - clock
    return seconds, seconds if cohort.execution.device.type == "cuda" else time.process_time() - processor


def _count_backwards(member: Member) -> Callable[[], int]:
    """How often a backward has reached the student since; some optimisers (DOT) take two in a step."""
    calls: dict[int, int] = {}

    def count(parameter: Tensor) -> None:
        calls[id(parameter)] = calls.get(id(parameter), 0) + 1

    for parameter in member.network.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(count)  # type: ignore[no-untyped-call]
    return lambda: max(calls.values(), default=0)


class Multiplications(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Multiply-accumulates of a block by torch's formulas; also of gradients that a loss takes itself, unlike torch's FlopCounterMode."""

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry  # here: it loads triton, which no plan waits for

        super().__init__()  # type: ignore[no-untyped-call]
        self.total, self._formulas = 0, flop_registry

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if (count := self._formulas.get(function._overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result) // 2  # an operation is a multiplication or an addition
        return result


@contextmanager
def saved_bytes() -> Iterator[dict[int, int]]:
    """Bytes of every storage that autograd saves for the backward in a block, by address."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield storages


def _bytes_of(member: Member) -> int:
    """Parameters, their gradients, buffers, and the optimiser's state."""
    parameters = sum(p.numel() * p.element_size() for m in (member.network, member.objective) for p in m.parameters())
    state = sum(v.numel() * v.element_size() for s in member.optimizer.state.values() for v in s.values() if isinstance(v, Tensor))
    return parameters + _bytes(member.network) + _bytes(member.objective) + state


def _bytes(module: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])


def _synchronise(cohort: Cohort) -> None:
    if cohort.execution.device.type == "cuda":
        torch.cuda.synchronize(cohort.execution.device)
