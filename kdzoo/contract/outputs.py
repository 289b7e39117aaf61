"""The nouns that flow through a training step: Need, Outputs, Shapes, Batch, Progress, Losses.

A network turns a batch into `Outputs`; a method says with `Need` what it reads of them. Whatever was not asked for is
not there: reading it raises `UndeclaredNeed`, whose message names the fix. Free of torch until a tensor is handled, so
that methods are listed at once.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, cast

from kdzoo.errors import KdzooError, did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Value = TypeVar("Value")


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
    PARTNER = enum.auto()
    """the student's outputs for another training image of each sample's class"""
    PREACT = enum.auto()
    """the stages before their last activation, one for each stage, of its shape"""
    DISTILLED = enum.auto()
    """the distillation token's class scores, (B, K); the logits are then the class token's"""
    MEMBERS = enum.auto()
    """the class scores of each network of an ensemble, each (B, K); of a single network its own"""
    NETWORK = enum.auto()
    """the network itself and the images, for methods that look at gradients or at other inputs"""
    TARGETS = enum.auto()
    """the hard labels of the batch, (B,) int64"""


PASSES = Need.SECOND_VIEW | Need.PARTNER
"""what takes another forward on other images"""


class Probeable(Protocol):
    """A network as methods see it that look at gradients or at other inputs."""

    def __call__(self, images: Tensor) -> Tensor:
        """Class scores (B, K) of images (B, C, H, W) in 0..255, uint8 or float."""

    def outputs(self, images: Tensor, need: Need) -> Outputs:
        """Everything that one forward can give; stages are those that are paired."""

    def picking(self, stages: Sequence[int]) -> Probeable:
        """The same network, whose outputs hold these stages alone."""


@dataclass(frozen=True)
class Needs:
    """What a method reads of each network, and of the batch; one `Need` means the same of both.

    preact_if_given: whether the teacher's stages are read before their last activation where it gives them so.
    """

    student: Need
    teacher: Need
    preact_if_given: bool = False

    @staticmethod
    def of(needs: Need | Needs) -> Needs:
        return needs if isinstance(needs, Needs) else Needs(needs, needs & ~(Need.TARGETS | Need.PARTNER | Need.DISTILLED))

    def __or__(self, other: Needs) -> Needs:
        return Needs(self.student | other.student, self.teacher | other.teacher, self.preact_if_given or other.preact_if_given)

    def settled(self, preact: bool) -> Needs:
        """What is read of a teacher that gives pre-activation maps, or of one that does not."""
        before = preact and self.preact_if_given
        return Needs(self.student, self.teacher & ~Need.STAGES | Need.PREACT if before else self.teacher)

    @property
    def targets(self) -> bool:
        return Need.TARGETS in self.student


NO_NEEDS = Needs(Need.NOTHING, Need.NOTHING)


class UndeclaredNeed(KdzooError):
    """A method read what it had not asked for."""


def describe(need: Need) -> str:
    """`Need.LOGITS | Need.STAGES`, as one writes it in a declaration."""
    return " | ".join(f"Need.{member.name}" for member in Need if member in need and member.value) or "Need.NOTHING"


def _explain_unknown(owner: str, name: str, known: Sequence[str], aliases: Mapping[str, str], example: str) -> NoReturn:
    """Raise AttributeError for something that is not there, with the nearest name and all that can be read."""
    if name.startswith("_"):  # a protocol of Python's (copy, pickle), which asks for much and expects a plain no
        raise AttributeError(name)
    near = f"; did you mean {aliases[name.lower()]!r}?" if name.lower() in aliases else did_you_mean(name, known)
    from torch import Tensor

    if not near and hasattr(Tensor, name):
        near = f": it is not a tensor but holds several; write {owner}.{example}.{name}"
    raise AttributeError(f"{owner} has no {name!r}{near}{' It' if near.endswith('?') else '; it'} has: {', '.join(known)}")


class Outputs:
    """What one network gave for one batch, restricted to what was asked for.

    logits (B, K) · embedding (B, D) · stages: list of (B, C, H, W), shallow to deep · classifier: nn.Module ·
    preact: as stages · distilled (B, K) · members: list of (B, K) · second, partner: the Outputs of the second view, of the partners ·
    network: the network itself, images -> logits, with `outputs(images, need)` for all that a forward can give.
    Raises UndeclaredNeed when something is read that was not asked for.
    """

    def __init__(self, values: Mapping[Need, Any], *, owner: str, on_read: Callable[[Need], None] | None = None) -> None:
        self._values = dict(values)
        self._owner = owner
        self._on_read = on_read

    if not TYPE_CHECKING:  # to a type checker an unknown attribute stays an error

        def __getattr__(self, name: str) -> NoReturn:
            _explain_unknown(self.__dict__.get("_owner", "student"), name, READABLE, ALIASES, "logits")

    def __repr__(self) -> str:
        """What is there with its shapes, for a `print` in a loss; nothing counts as read."""
        return f"Outputs of the {self._owner} ({', '.join(f'{str(n.name).lower()} {_measures(v)}' for n, v in self._values.items())})"

    def _read(self, need: Need) -> Any:
        if self._on_read is not None:
            self._on_read(need)
        if need not in self._values:
            declared = describe(Need(sum(n.value for n in self._values)) | need)
            name = {Need.SECOND_VIEW: "second"}.get(need, str(need.name).lower())
            raise UndeclaredNeed(f"{self._owner}.{name} is read, but needs= does not declare it: write needs={declared}")
        return self._values[need]

    @property
    def logits(self) -> Tensor:
        return cast("Tensor", self._read(Need.LOGITS))

    @property
    def embedding(self) -> Tensor:
        return cast("Tensor", self._read(Need.EMBEDDING))

    @property
    def stages(self) -> list[Tensor]:
        return cast("list[Tensor]", self._read(Need.STAGES))

    @property
    def classifier(self) -> nn.Module:
        return cast("nn.Module", self._read(Need.CLASSIFIER))

    @property
    def preact(self) -> list[Tensor]:
        return cast("list[Tensor]", self._read(Need.PREACT))

    @property
    def preact_or_stages(self) -> list[Tensor]:
        """The stages before their last activation where these were given, the stages elsewhere (`Needs.preact_if_given`)."""
        return self.stages if self.get(Need.PREACT) is None else self.preact

    @property
    def distilled(self) -> Tensor:
        return cast("Tensor", self._read(Need.DISTILLED))

    @property
    def members(self) -> list[Tensor]:
        return cast("list[Tensor]", self._read(Need.MEMBERS))

    @property
    def second(self) -> Outputs:
        return cast(Outputs, self._read(Need.SECOND_VIEW))

    @property
    def partner(self) -> Outputs:
        return cast(Outputs, self._read(Need.PARTNER))

    @property
    def network(self) -> Probeable:
        return cast(Probeable, self._read(Need.NETWORK))

    def saying(self, values: Mapping[Need, Any]) -> Outputs:
        """The same outputs with other values for some needs."""
        return Outputs({**self._values, **values}, owner=self._owner, on_read=self._on_read)

    def beside(self, other: Need, outputs: Outputs) -> Outputs:
        """The same outputs with those of another pass (Need.SECOND_VIEW, Need.PARTNER) beside them."""
        return self.saying({other: outputs})

    def items(self) -> Iterable[tuple[Need, Any]]:
        """Everything that is there, by need."""
        return self._values.items()

    def get(self, need: Need) -> Any:
        """What there is for one need, whoever asked for it; None where there is nothing."""
        return self._values.get(need)

    def map(self, act: Callable[[Tensor], Tensor]) -> Outputs:
        """The same outputs with every tensor, in lists and other passes too, replaced by what `act` makes of it."""
        from torch import Tensor

        def mapped(value: Any) -> Any:
            if isinstance(value, list):
                return [mapped(item) for item in value]
            return act(value) if isinstance(value, Tensor) else value.map(act) if isinstance(value, Outputs) else value

        return Outputs({n: mapped(v) for n, v in self._values.items()}, owner=self._owner, on_read=self._on_read)

    def wide(self) -> Outputs:
        """The same outputs in float32 at least, so that a loss written without a thought of precision is computed in it."""
        import torch

        return self.map(lambda tensor: tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor)

    def only(self, need: Need, stages: Sequence[int] | None = None, *, owner: str | None = None) -> Outputs:
        """The same outputs with nothing but `need`, of the stages only those picked, named in errors as the `owner`'s."""
        values = {n: v for n, v in self._values.items() if n in need}
        for maps in (Need.STAGES, Need.PREACT):
            if stages is not None and maps in values:
                values[maps] = [values[maps][i] for i in stages]
        if stages is not None and Need.NETWORK in values:
            values[Need.NETWORK] = values[Need.NETWORK].picking(stages)
        for other in PASSES:
            if other in values:
                values[other] = values[other].only(need & ~PASSES, stages, owner=owner)
        return Outputs(values, owner=owner or self._owner, on_read=self._on_read)


READABLE = ("logits", "embedding", "stages", "classifier", "preact", "distilled", "members", "second", "partner", "network")
"""what a method can read of a network"""
ALIASES = {
    **dict.fromkeys(("features", "feature", "feats", "feat", "feature_maps", "fmaps", "maps", "hints", "hidden_states"), "stages"),
    **dict.fromkeys(("pooled", "representation", "penultimate", "emb", "hidden", "features_pooled"), "embedding"),
    **dict.fromkeys(("output", "outputs", "out", "scores", "pred", "preds", "predictions", "y_hat"), "logits"),
    **dict.fromkeys(("fc", "head"), "classifier"),
    **dict.fromkeys(("model", "net"), "network"),
    **dict.fromkeys(("second_view", "view2"), "second"),
}
"""what else these are called"""
BATCH_READABLE = ("targets", "soft_targets", "inputs", "index", "clock", "generator")
BATCH_ALIASES = {
    **dict.fromkeys(("labels", "label", "y", "classes"), "targets"),
    **dict.fromkeys(("images", "image", "x", "data", "pixels"), "inputs"),
    **dict.fromkeys(("indices", "idx", "ids"), "index"),
    **dict.fromkeys(("epoch", "step", "progress"), "clock"),
    "rng": "generator",
}


def _measures(value: Any) -> str:
    from torch import Tensor

    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    return f"[{', '.join(map(_measures, value))}]" if isinstance(value, list) else type(value).__name__


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

    preact, distilled: whether the network gives pre-activation maps, and has a distillation token.
    classifier: a frozen copy of the module from embedding (B, D) to logits; None where there is no single one.
    fresh: makes a new network of the same architecture with a random start of its own, images (uint8) -> logits.
    """

    classes: int
    embedding: int
    stages: tuple[StageShape, ...]
    preact: bool = True
    distilled: bool = False
    classifier: nn.Module | None = field(default=None, compare=False, repr=False)
    fresh: Callable[[], nn.Module] | None = field(default=None, compare=False, repr=False)

    def pick(self, stages: Sequence[int] | None) -> Shapes:
        """The same with some of the stages alone, by index; all of them for None."""
        return self if stages is None else replace(self, stages=tuple(self.stages[i] for i in stages))


@dataclass(frozen=True)
class DataFacts:
    """What a method may know of the training data when it builds its modules: size, classes, targets (N,) int64."""

    samples: int
    classes: int
    targets: Tensor


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
        index: Tensor,
        clock: Progress,
        generator: torch.Generator,
        soft_targets: Tensor | None = None,
        asked: Need = Need.TARGETS | Need.NETWORK,
        on_read: Callable[[Need], None] | None = None,
    ) -> None:
        self._inputs = inputs
        self._targets = targets
        self._soft_targets = soft_targets
        self._asked = asked
        self._on_read = on_read
        self.index = index
        self.clock = clock
        self.generator = generator

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            _explain_unknown("batch", name, BATCH_READABLE, BATCH_ALIASES, "targets")

    def _read(self, need: Need, name: str, value: Value) -> Value:
        if self._on_read is not None:
            self._on_read(need)
        if need not in self._asked:
            raise UndeclaredNeed(f"batch.{name} is read, but needs= does not declare it: add {describe(need)}")
        return value

    @property
    def targets(self) -> Tensor:
        return self._read(Need.TARGETS, "targets", self._targets)

    @property
    def soft_targets(self) -> Tensor | None:
        return self._read(Need.TARGETS, "soft_targets", self._soft_targets)

    @property
    def inputs(self) -> Tensor:
        return self._read(Need.NETWORK, "inputs", self._inputs)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What can be read of it, by name."""
        there = {"targets": self._targets, "soft targets": self._soft_targets} if Need.TARGETS in self._asked else {}
        seen = {"inputs": self._inputs} if Need.NETWORK in self._asked else {}
        for name, value in {"index": self.index, **there, **seen}.items():
            if value is not None:
                yield name, value

    def copied(self) -> Batch:
        """The same batch with copies of what can be read of it."""
        reads_images = Need.NETWORK in self._asked
        return Batch(
            inputs=self._inputs.clone() if reads_images else self._inputs,
            targets=self._targets.clone(),
            soft_targets=None if self._soft_targets is None else self._soft_targets.clone(),
            index=self.index.clone(),
            clock=self.clock,
            generator=self.generator,
            asked=self._asked,
            on_read=self._on_read,
        )

    def only(self, asked: Need, generator: torch.Generator) -> Batch:
        """The same batch for a method that asked for `asked`, with that method's own random stream."""
        return Batch(
            inputs=self._inputs,
            targets=self._targets,
            soft_targets=self._soft_targets,
            index=self.index,
            clock=self.clock,
            generator=generator,
            asked=asked,
            on_read=self._on_read,
        )


@dataclass(frozen=True)
class Losses:
    """The weighted sum that is minimised, and each part before its weight, by name (`ce` is the task loss).

    task, distilled: what the task loss and the terms contribute to the sum; task is None where its factor is 0.
    """

    total: Tensor
    parts: Mapping[str, Tensor]
    task: Tensor | None
    distilled: Tensor
