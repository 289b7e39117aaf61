"""The nouns that flow through a training step: Need, Outputs, Shapes, Batch, Clock, Losses.

A network turns a batch into `Outputs`; a method says with `Need` what it reads of them. Whatever was not asked for is
not there: reading it raises `UndeclaredNeed`, whose message names the fix.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdzoo.errors import KdzooError


class Need(enum.Flag):
    """What a method reads. Combine with `|`."""

    NOTHING = 0
    LOGITS = enum.auto()
    """class scores before the softmax, (B, K)"""
    EMBEDDING = enum.auto()
    """the pooled vector before the classifier, (B, D)"""
    STAGES = enum.auto()
    """the last feature map of each resolution, shallow to deep, each (B, C, H, W), stem excluded"""
    CLASSIFIER = enum.auto()
    """the module that maps the embedding to the logits"""
    SECOND_VIEW = enum.auto()
    """the outputs for a second, independent augmentation of the same images"""
    NETWORK = enum.auto()
    """the network itself and the images, for methods that look at gradients or at other inputs"""
    TARGETS = enum.auto()
    """the hard labels of the batch, (B,) int64"""


@dataclass(frozen=True)
class Needs:
    """What a method reads of each network, and of the batch; one `Need` means the same of both."""

    student: Need
    teacher: Need

    @staticmethod
    def of(needs: Need | Needs) -> Needs:
        return needs if isinstance(needs, Needs) else Needs(needs, needs & ~Need.TARGETS)

    def __or__(self, other: Needs) -> Needs:
        return Needs(self.student | other.student, self.teacher | other.teacher)

    @property
    def targets(self) -> bool:
        return Need.TARGETS in self.student


NO_NEEDS = Needs(Need.NOTHING, Need.NOTHING)


class UndeclaredNeed(KdzooError):
    """A method read what it had not asked for."""


def describe(need: Need) -> str:
    """`Need.LOGITS | Need.STAGES`, as one writes it in a declaration."""
    return " | ".join(f"Need.{member.name}" for member in Need if member in need and member.value) or "Need.NOTHING"


class Outputs:
    """What one network gave for one batch, restricted to what was asked for.

    logits (B, K) · embedding (B, D) · stages: list of (B, C, H, W), shallow to deep · classifier: nn.Module ·
    second: the Outputs of the second view · network: the nn.Module that maps images to logits.
    Raises UndeclaredNeed when something is read that was not asked for.
    """

    def __init__(self, values: Mapping[Need, Any], *, owner: str, on_read: Callable[[Need], None] | None = None) -> None:
        self._values = dict(values)
        self._owner = owner
        self._on_read = on_read

    def _read(self, need: Need) -> Any:
        if self._on_read is not None:
            self._on_read(need)
        if need not in self._values:
            declared = describe(Need(sum(n.value for n in self._values)) | need)
            raise UndeclaredNeed(f"the {self._owner}'s {str(need.name).lower()} was read but not asked for: declare needs={declared}")
        return self._values[need]

    @property
    def logits(self) -> Tensor:
        return cast(Tensor, self._read(Need.LOGITS))

    @property
    def embedding(self) -> Tensor:
        return cast(Tensor, self._read(Need.EMBEDDING))

    @property
    def stages(self) -> list[Tensor]:
        return cast(list[Tensor], self._read(Need.STAGES))

    @property
    def classifier(self) -> nn.Module:
        return cast(nn.Module, self._read(Need.CLASSIFIER))

    @property
    def second(self) -> Outputs:
        return cast(Outputs, self._read(Need.SECOND_VIEW))

    @property
    def network(self) -> nn.Module:
        return cast(nn.Module, self._read(Need.NETWORK))

    def with_second(self, second: Outputs) -> Outputs:
        """The same outputs with those for the second view beside them."""
        return Outputs({**self._values, Need.SECOND_VIEW: second}, owner=self._owner, on_read=self._on_read)

    def wide(self) -> Outputs:
        """The same outputs in float32 at least, so that a loss written without a thought of precision is computed in it."""

        def widened(value: Any) -> Any:
            if isinstance(value, list):
                return [widened(item) for item in value]
            half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
            return value.float() if half else value.wide() if isinstance(value, Outputs) else value

        return Outputs({n: widened(v) for n, v in self._values.items()}, owner=self._owner, on_read=self._on_read)

    def only(self, need: Need, stages: Sequence[int] | None = None, *, owner: str | None = None) -> Outputs:
        """The same outputs with nothing but `need`, of the stages only those picked, named in errors as the `owner`'s."""
        values = {n: v for n, v in self._values.items() if n in need}
        if stages is not None and Need.STAGES in values:
            values[Need.STAGES] = [values[Need.STAGES][i] for i in stages]
        if Need.SECOND_VIEW in values:
            values[Need.SECOND_VIEW] = values[Need.SECOND_VIEW].only(need & ~Need.SECOND_VIEW, stages, owner=owner)
        return Outputs(values, owner=owner or self._owner, on_read=self._on_read)


@dataclass(frozen=True)
class StageShape:
    """One stage of a network for one image: channels, height, width, and input height divided by map height."""

    channels: int
    height: int
    width: int
    reduction: float

    def __str__(self) -> str:
        return f"{self.channels}x{self.height}x{self.width}"


@dataclass(frozen=True)
class Shapes:
    """What a network's outputs measure for one image, as a probe found them; `embedding` is a width."""

    classes: int
    embedding: int
    stages: tuple[StageShape, ...]

    def pick(self, stages: Sequence[int]) -> Shapes:
        return Shapes(self.classes, self.embedding, tuple(self.stages[i] for i in stages))


@dataclass(frozen=True)
class DataFacts:
    """What a method may know of the training data when it builds its modules: size, classes, targets (N,) int64."""

    samples: int
    classes: int
    targets: Tensor


@dataclass(frozen=True)
class Clock:
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

    `targets` is -1 where a sample carries no label. `inputs` (the augmented images, (B, C, H, W) uint8) are there for
    methods that declare Need.NETWORK; `targets` for those that declare Need.TARGETS.
    """

    def __init__(
        self,
        *,
        inputs: Tensor,
        targets: Tensor,
        index: Tensor,
        clock: Clock,
        generator: torch.Generator,
        asked: Need = Need.TARGETS | Need.NETWORK,
        on_read: Callable[[Need], None] | None = None,
    ) -> None:
        self._inputs = inputs
        self._targets = targets
        self._asked = asked
        self._on_read = on_read
        self.index = index
        self.clock = clock
        self.generator = generator

    def _read(self, need: Need, name: str, value: Tensor) -> Tensor:
        if self._on_read is not None:
            self._on_read(need)
        if need not in self._asked:
            raise UndeclaredNeed(f"the batch's {name} were read but not asked for: add {describe(need)} to needs=")
        return value

    @property
    def targets(self) -> Tensor:
        return self._read(Need.TARGETS, "targets", self._targets)

    @property
    def inputs(self) -> Tensor:
        return self._read(Need.NETWORK, "inputs", self._inputs)

    def only(self, asked: Need, generator: torch.Generator) -> Batch:
        """The same batch for a method that asked for `asked`, with that method's own random stream."""
        return Batch(
            inputs=self._inputs,
            targets=self._targets,
            index=self.index,
            clock=self.clock,
            generator=generator,
            asked=asked,
            on_read=self._on_read,
        )


@dataclass(frozen=True)
class Losses:
    """The weighted sum that is minimised, and each part before its weight, by name (`ce` is the task loss)."""

    total: Tensor
    parts: Mapping[str, Tensor]
