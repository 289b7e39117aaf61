"""Batch: what a method reads besides the two networks' outputs; Progress, where training stands; and Losses, what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, TypeVar

from kdzoo.contract.needs import Need, NotProvided, UndeclaredNeed, describe
from kdzoo.contract.outputs import explain_unknown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Value = TypeVar("Value")

BATCH_READABLE = ("targets", "soft_targets", "inputs", "index", "clock", "generator")
BATCH_ALIASES = {
    **dict.fromkeys(("labels", "label", "y", "classes"), "targets"),
    **dict.fromkeys(("images", "image", "x", "data", "pixels"), "inputs"),
    **dict.fromkeys(("indices", "idx", "ids"), "index"),
    **dict.fromkeys(("epoch", "step", "progress"), "clock"),
    "rng": "generator",
}


@dataclass(frozen=True)
class Progress:
    """Where training stands: `epoch` of `epochs`, `step` of `steps` (both from 0)."""

    epoch: int
    epochs: int
    step: int
    steps: int

    @property
    def progress(self) -> float:
        """The share of all steps that is done, from 0 to 1."""
        return self.step / self.steps


class Batch:
    """One batch: targets (B,) int64, index (B,) int64 into the training set, the clock, a named random generator.

    `targets` is -1 where a sample carries no label. Where images are mixed (mixup, CutMix), `targets` and `index` are of
    the one with the larger share, and `soft_targets` (B, K) float32 has the share of every class; elsewhere it is None.
    `inputs` (the augmented images, (B, C, H, W) uint8) are there for methods that declare Need.NETWORK;
    `targets` and `soft_targets` for those that declare Need.TARGETS.
    """

    def __init__(
        self,
        *,
        inputs: Tensor,
        targets: Tensor,
        index: Tensor | None,
        clock: Progress,
        generator: torch.Generator,
        soft_targets: Tensor | None = None,
        need: Need = Need.TARGETS | Need.NETWORK,
        on_read: Callable[[Need], None] | None = None,
    ) -> None:
        self._inputs = inputs
        self._targets = targets
        self._soft_targets = soft_targets
        self._need = need
        self._on_read = on_read
        self._index = index
        self.clock = clock
        self.generator = generator

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            explain_unknown("batch", name, BATCH_READABLE, BATCH_ALIASES, "targets")

    def _read(self, need: Need, name: str, value: Value) -> Value:
        if self._on_read is not None:
            self._on_read(need)
        if need not in self._need:
            raise UndeclaredNeed(f"batch.{name} is read, but needs= does not declare it: add {describe(need)}")
        return value

    @property
    def targets(self) -> Tensor:
        return self._read(Need.TARGETS, "targets", self._targets)

    @property
    def soft_targets(self) -> Tensor | None:
        return self._read(Need.TARGETS, "soft_targets", self._soft_targets)

    @property
    def index(self) -> Tensor:
        if self._index is None:
            raise NotProvided("reads batch.index: pass the position of each sample in the training set with every batch")
        return self._index

    @property
    def device(self) -> torch.device:
        return self._targets.device

    @property
    def inputs(self) -> Tensor:
        return self._read(Need.NETWORK, "inputs", self._inputs)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What can be read of it, by name."""
        labels = {"targets": self._targets, "soft targets": self._soft_targets} if Need.TARGETS in self._need else {}
        images = {"inputs": self._inputs} if Need.NETWORK in self._need else {}
        for name, value in {"index": self._index, **labels, **images}.items():
            if value is not None:
                yield name, value

    def map(self, act: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with what can be read of it replaced by what `act` makes of each tensor."""
        reads_images = Need.NETWORK in self._need
        return Batch(
            inputs=act(self._inputs) if reads_images else self._inputs,
            targets=act(self._targets),
            soft_targets=None if self._soft_targets is None else act(self._soft_targets),
            index=None if self._index is None else act(self._index),
            clock=self.clock,
            generator=self.generator,
            need=self._need,
            on_read=self._on_read,
        )

    def of_column(self, place: int) -> Batch:
        """The same batch with one column of its targets (B, C), by place."""
        return Batch(
            inputs=self._inputs,
            targets=self._targets[:, place],
            soft_targets=self._soft_targets,
            index=self._index,
            clock=self.clock,
            generator=self.generator,
            need=self._need,
            on_read=self._on_read,
        )

    def copy(self) -> Batch:
        """The same batch with copies of what can be read of it."""
        return self.map(lambda tensor: tensor.clone())

    def restrict_to(self, need: Need, generator: torch.Generator) -> Batch:
        """The same batch for a method that reads `need`, with that method's own random stream."""
        return Batch(
            inputs=self._inputs,
            targets=self._targets,
            soft_targets=self._soft_targets,
            index=self._index,
            clock=self.clock,
            generator=generator,
            need=need,
            on_read=self._on_read,
        )


@dataclass(frozen=True)
class Losses:
    """The weighted sum that is minimised, and each part before its weight, by name (`ce` is the task loss).

    task, distillation: what the task loss and the terms contribute to the sum; task is None where its factor is 0.
    """

    total: Tensor
    parts: Mapping[str, Tensor]
    task: Tensor | None
    distillation: Tensor
