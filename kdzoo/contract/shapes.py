"""What a method's `build` may know: the shapes of two networks' outputs, and the training data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NoReturn

from kdzoo.contract.needs import NotProvided
from kdzoo.tasks.targets import is_labelled

if TYPE_CHECKING:
    from torch import Tensor, nn


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
    """What a network's outputs measure for one image, as a probe found them; `embedding` is a width.

    preact, distilled: whether the network gives pre-activation maps, and has a distillation token. sequences: whether it is one of
    texts, whose stages (D, 1, L) lie over tokens. joined: the widths of the parts of an embedding that are each another teacher's,
    where several are joined; empty where it is one network's. tokeniser: a digest of what splits its texts into these; None where it is
    not known.
    classifier: a frozen copy of the module from embedding (B, D) to logits; None where there is no single one.
    fresh: makes a new network of the same architecture with a random start of its own, images (uint8) -> logits.
    embed: the positions of training samples (N,) -> the network's embeddings of them (N, D), float32, in evaluation mode and without
    augmentation; None where the network or the samples are not at hand.
    """

    classes: int
    embedding: int
    stages: tuple[StageShape, ...]
    preact: bool = True
    distilled: bool = False
    sequences: bool = False
    joined: tuple[int, ...] = ()
    tokeniser: str | None = None
    classifier: nn.Module | None = field(default=None, compare=False, repr=False)
    fresh: Callable[[], nn.Module] | None = field(default=None, compare=False, repr=False)
    embed: Callable[[Tensor], Tensor] | None = field(default=None, compare=False, repr=False)

    def pick(self, stages: Sequence[int] | None) -> Shapes:
        """The same with some of the stages alone, by index; all of them for None."""
        return self if stages is None else replace(self, stages=tuple(self.stages[i] for i in stages))


@dataclass(frozen=True)
class DataFacts:
    """What a method may know of the training data when it builds its modules: size, classes, targets (N,).

    input_shape: of one sample as the networks take it, (C, H, W); None where it is not known. It tells `kdzoo.Distiller` the shapes
    of the networks' outputs.
    """

    samples: int
    classes: int
    targets: Tensor
    input_shape: tuple[int, ...] | None = None

    @property
    def lacks_labels(self) -> bool:
        """Whether some samples have no label."""
        return not bool(is_labelled(self.targets).all())

    def copy(self) -> DataFacts:
        """The same facts with targets of their own, for code that may change them in place."""
        return replace(self, targets=self.targets.clone())

    @property
    def changes(self) -> int:
        """How often the targets were changed in place."""
        return self.targets._version


class UnknownFacts(DataFacts):
    """Data of which nothing is known: reading any of it raises NotProvided."""

    lacks_labels = False
    changes = 0

    def __init__(self) -> None: ...

    def copy(self) -> DataFacts:
        return self

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(name)
            raise NotProvided(f"reads data.{name}: pass data=kdzoo.DataFacts(samples, classes, targets), the facts of the training data")
