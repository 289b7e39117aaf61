"""Steps that are recorded once and replayed: a whole step of student, losses and optimiser as one launch.

A step of a small student is hundreds of kernels, each over before the host has launched the next. What is recorded reads
images, targets and the teacher's outputs from buffers that every batch is copied to, and rates, factors and the step's number
from the device (`Member.prepare_recording`); random streams are seeded between steps. The first steps, which train as all do, show
whether a step can be recorded at all: it must neither make the host wait nor look at the step's number. What is computed by
epoch is recorded anew in each. Short batches are computed as they come, and so is the moving average.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from kdzoo.contract.batch import Progress
from kdzoo.contract.guard import named_tensors
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.text import first_line
from kdzoo.training.device_reads import device_reads
from kdzoo.training.dot import DOT
from kdzoo.training.member import Member, StepInputs
from kdzoo.training.recorder import Recorder

WARM_UP = 3
"""steps of a learner before one is recorded"""


class Learner(Protocol):
    """A run, or several as one, in the three parts of a step (`Member`, `BatchedMembers`)."""

    @property
    def active(self) -> list[Member]: ...
    def begin_step(self, clock: Progress) -> None: ...
    def compute_step(self, step_inputs: StepInputs) -> None: ...
    def end_step(self, samples: int) -> None: ...
    def layer_stream(self, step: int) -> AbstractContextManager[None]: ...
    def prepare_recording(self) -> None: ...
    def compute_unguarded(self, step_inputs: StepInputs) -> None: ...
    def clear_gradients(self) -> None: ...


def learn(learner: Learner, step_inputs: StepInputs) -> None:
    """Train a learner for a step without recording it."""
    learner.begin_step(step_inputs.batch.clock)
    learner.compute_step(step_inputs)
    learner.end_step(step_inputs.size)


class WatchedClock(Progress):
    """Where training stands, noting which of the numbers that change are read."""

    reads: set[str]

    def __getattribute__(self, name: str) -> object:
        if name in ("epoch", "step"):
            self.reads.add(name)
        return super().__getattribute__(name)


def watched(clock: Progress) -> WatchedClock:
    own = WatchedClock.__new__(WatchedClock)
    object.__setattr__(own, "reads", set())
    own.__init__(clock.epoch, clock.epochs, clock.step, clock.steps)  # type: ignore[misc]
    own.reads.clear()
    return own


@dataclass
class _Recording:
    """The recorded step of a learner. runs: the members that it trains. epoch: the one that it holds for; None for all."""

    runs: tuple[str, ...]
    epoch: int | None
    replay: Callable[[], None]


class StepGraphs:
    """Records the steps of a cohort's learners, for whole batches of `block` samples each.

    `notes` are messages about learners that are trained without graphs.
    """

    def __init__(self, recorder: Recorder, learners: Sequence[Learner], block: int) -> None:
        self._recorder = recorder
        self._block = block
        self._buffers: _Buffers | None = None
        self._warm: dict[Learner, int] = {}
        self._reads: dict[Learner, set[str]] = {}
        self._recordings: dict[Learner, _Recording] = {}
        self.notes: list[str] = []
        self._recordable: set[Learner] = set()
        for learner in learners:
            if why := why_not_recorded(learner.active):
                self._note(learner, why)
                continue
            learner.prepare_recording()
            self._recordable.add(learner)

    def load_batch(self, step_inputs: StepInputs) -> None:
        """Copy a whole batch to the buffers that recorded steps read; a short one is trained on without them."""
        if len(step_inputs.batch.index) != self._block:
            return
        if self._buffers is None or not self._buffers.fit(step_inputs):
            self._buffers = _Buffers(step_inputs)
            self._recordings = {}
        else:
            self._buffers.fill(step_inputs)

    def learn(self, learner: Learner, step_inputs: StepInputs) -> None:
        """Train a learner for a step on the batch that was loaded last: replayed, recorded, or as it comes."""
        if not learner.active or learner.active[0].numbers is None:
            learn(learner, step_inputs)
            return
        learner.begin_step(step_inputs.batch.clock)
        with learner.layer_stream(step_inputs.batch.clock.step):
            if learner in self._recordable and len(step_inputs.batch.index) == self._block:
                self._compute(learner, step_inputs)
            else:
                learner.compute_step(step_inputs)
        learner.end_step(step_inputs.size)

    def records(self, member: Member) -> bool:
        """Whether a member's steps are replayed."""
        return any(member in learner.active for learner in self._recordings)

    def new_notes(self) -> list[str]:
        """The notes since the last call."""
        notes, self.notes = self.notes, []
        return notes

    def _compute(self, learner: Learner, step_inputs: StepInputs) -> None:
        assert self._buffers is not None
        clock, runs = watched(step_inputs.batch.clock), tuple(member.run.id for member in learner.active)
        recording = self._recordings.get(learner)
        if recording is not None and recording.runs == runs and recording.epoch in (None, step_inputs.batch.clock.epoch):
            recording.replay()
            return
        act = partial(learner.compute_step, self._buffers.at(clock))
        warm = self._warm.get(learner, 0)
        if warm < WARM_UP:
            self._warm[learner] = warm + 1
            if warm:
                self._recorder.warm_up(act)
                return
            with device_reads() as waits:
                self._recorder.warm_up(act)
            self._reads[learner] = clock.reads
            if waits or "step" in clock.reads:
                self._give_up(learner, f"{waits[0]} makes the host wait" if waits else "a loss looks at the number of the step")
            return
        epoch = step_inputs.batch.clock.epoch if "epoch" in self._reads[learner] else None
        streams = [stream for member in learner.active for stream in member.objective.streams.values()]
        try:
            unguarded = partial(learner.compute_unguarded, self._buffers.at(clock))
            self._recordings[learner] = _Recording(runs, epoch, self._recorder.record(unguarded, streams))
        except RuntimeError as error:
            self._give_up(learner, first_line(error))
            learner.clear_gradients()  # of a backward that was recorded in part nothing was computed
            learner.compute_step(step_inputs)

    def _give_up(self, learner: Learner, why: str) -> None:
        self._recordable.discard(learner)
        self._recordings.pop(learner, None)
        self._note(learner, why)

    def _note(self, learner: Learner, why: str) -> None:
        names = ", ".join(member.run.id for member in learner.active)
        self.notes.append(f"{names}: trained without CUDA graphs: {why}")


def why_not_recorded(members: Sequence[Member]) -> str | None:
    """Why the steps of these members cannot be recorded, known beforehand; None where they may be."""
    for member in members:
        methods = [term.method.card for term in member.objective.terms]
        if isinstance(member.optimizer, DOT):
            return "DOT takes two gradients"
        if member.scaler.is_enabled():
            return "the steps that float16 skips are counted one by one; take bfloat16"
        if outside := [card.name for card in methods if card.outside]:
            return f"what {outside[0]} does besides its loss is not known"
        if draws := [card.name for card in methods if Need.NETWORK in (card.needs.student | card.needs.teacher).outputs]:
            return f"{draws[0]} runs networks of its own, whose random layers are seeded in every step"
    return None


def _tensors(step_inputs: StepInputs) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that a step reads, by name, each once."""
    named = [(str(which), images) for which, images in step_inputs.inputs.items()]
    named += step_inputs.batch.tensors()
    named += named_tensors("the teacher's", step_inputs.teacher or Outputs(owner="teacher"), without=Need.NETWORK | Need.CLASSIFIER)
    yield from {id(tensor): (name, tensor) for name, tensor in named}.values()


class _Buffers:
    """The tensors of a whole batch, at places that stay."""

    def __init__(self, step_inputs: StepInputs) -> None:
        copies = {id(tensor): tensor.clone() for _, tensor in _tensors(step_inputs)}

        def copy_of(tensor: Tensor) -> Tensor:
            return copies[id(tensor)]

        self._layout = _layout(step_inputs)
        self._tensors = list(copies.values())
        self._buffered = StepInputs(
            {which: copy_of(images) for which, images in step_inputs.inputs.items()},
            None if step_inputs.teacher is None else step_inputs.teacher.map(copy_of),
            step_inputs.batch.map(copy_of),
            step_inputs.size,
        )

    def fit(self, step_inputs: StepInputs) -> bool:
        """Whether another batch has the same tensors in it."""
        return self._layout == _layout(step_inputs)

    def fill(self, step_inputs: StepInputs) -> None:
        torch._foreach_copy_(self._tensors, [tensor for _, tensor in _tensors(step_inputs)])

    def at(self, clock: Progress) -> StepInputs:
        """The batch in the buffers, with a clock."""
        batch = self._buffered.batch.map(lambda tensor: tensor)
        batch.clock = clock
        return replace(self._buffered, batch=batch)


def _layout(step_inputs: StepInputs) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [(name, tensor.shape, tensor.dtype) for name, tensor in _tensors(step_inputs)]
