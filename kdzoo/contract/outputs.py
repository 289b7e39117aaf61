"""Outputs: what one network gives for one batch, of which a method reads what it asked for and nothing else.

Whatever was not asked for raises `UndeclaredNeed`, whose message names the fix; what was asked for and is not there is
None. Free of torch until a tensor is handled, so that methods are listed at once.
"""

from __future__ import annotations

import enum
import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, Protocol, TypeVar

from kdzoo.contract.needs import BY_WORD, KINDS, PASS_KINDS, Need, NetworkNeeds, Pass, UndeclaredNeed, describe, kind_of
from kdzoo.errors import add_clause, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

Value = TypeVar("Value")


class DifferentiableNetwork(Protocol):
    """A network as methods see it that look at gradients or at other inputs."""

    def __call__(self, images: Tensor) -> Tensor:
        """Class scores (B, K) of images (B, C, H, W) in 0..255, uint8 or float."""

    def outputs(self, images: Tensor, need: Need) -> Outputs:
        """Everything that one forward can give; stages are those that are paired."""

    def with_stages(self, stages: Sequence[int]) -> DifferentiableNetwork:
        """The same network, whose outputs hold these stages alone."""


class Absent(enum.Enum):
    """The placeholder in Outputs for what was not asked for."""

    NOT_ASKED = "not asked for"


NOT_ASKED: Final = Absent.NOT_ASKED


class Readable(Generic[Value]):
    """A field of Outputs: reading it raises UndeclaredNeed where it was not asked for."""

    def __init__(self, what: Need | Pass) -> None:
        self.what = what
        self.name = kind_of(what).attribute

    def __get__(self, outputs: Outputs | None, owner: type[Outputs] | None = None) -> Value:
        if outputs is None:  # the dataclass asks for the field's default
            return NOT_ASKED  # type: ignore[return-value]
        if outputs.on_read is not None:
            outputs.on_read(self.what)
        value: Value = outputs.__dict__[self.name]
        if value is NOT_ASKED:
            raise UndeclaredNeed(
                f"{outputs.owner}.{self.name} is read, but needs= does not declare it: write needs={describe(outputs.needs | self.what)}"
            )
        return value

    def __set__(self, outputs: Outputs, value: Value | Absent) -> None:
        outputs.__dict__[self.name] = value  # by the dataclass's __init__ alone, which is frozen otherwise


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Outputs:
    """What one network gives for one batch, restricted to what was asked for; what was asked for and is not there is None.

    logits (B, K) · embedding (B, D) · stages: list of (B, C, H, W), shallow to deep · classifier: nn.Module ·
    preact: as stages · distilled (B, K) · members: list of (B, K) · second, partner: the Outputs of the second view, of the partners ·
    network: the network itself, images -> logits, with `outputs(images, need)` for all that a forward can give.
    owner: whose they are, for messages. on_read: called with the need, or the pass, of whatever is read.
    Raises UndeclaredNeed when something is read that was not asked for.
    """

    logits: Readable[Tensor] = Readable(Need.LOGITS)
    embedding: Readable[Tensor] = Readable(Need.EMBEDDING)
    stages: Readable[list[Tensor]] = Readable(Need.STAGES)
    classifier: Readable[nn.Module] = Readable(Need.CLASSIFIER)
    preact: Readable[list[Tensor]] = Readable(Need.PREACT)
    distilled: Readable[Tensor] = Readable(Need.DISTILLED)
    members: Readable[list[Tensor]] = Readable(Need.MEMBERS)
    second: Readable[Outputs] = Readable(Pass.SECOND_VIEW)
    partner: Readable[Outputs] = Readable(Pass.PARTNER)
    network: Readable[DifferentiableNetwork] = Readable(Need.NETWORK)
    owner: str = "network"
    on_read: Callable[[Need | Pass], None] | None = None

    @staticmethod
    def of(values: Mapping[Need, Any], *, owner: str, on_read: Callable[[Need | Pass], None] | None = None) -> Outputs:
        """The outputs with these values, and nothing else asked for."""
        return Outputs(**{KINDS[need].attribute: value for need, value in values.items()}, owner=owner, on_read=on_read)

    if not TYPE_CHECKING:  # to a type checker an unknown attribute stays an error

        def __getattr__(self, name: str) -> NoReturn:
            explain_unknown(self.__dict__.get("owner", "student"), name, list(ATTRIBUTES), ALIASES, "logits")

    def __repr__(self) -> str:
        """What is there with its shapes, for a `print` in a loss; nothing counts as read."""
        return f"Outputs of the {self.owner} ({', '.join(f'{name} {_measures(value)}' for name, value in self._values().items())})"

    @property
    def needs(self) -> NetworkNeeds:
        """What was asked for."""
        return functools.reduce(operator.or_, (ATTRIBUTES[name] for name in self._values()), NetworkNeeds(Need.NOTHING))

    @property
    def preact_or_stages(self) -> list[Tensor]:
        """The stages before their last activation where these were given, the stages elsewhere (`Needs.preact_if_given`)."""
        return self.stages if self.get(Need.PREACT) is None else self.preact

    def items(self) -> Iterator[tuple[Need, Any]]:
        """The first pass's outputs that were asked for, by need; nothing counts as read."""
        for name, value in self._values().items():
            if isinstance(what := ATTRIBUTES[name], Need):
                yield what, value

    def passes(self) -> Iterator[tuple[Pass, Outputs]]:
        """The outputs of the other passes that were asked for; nothing counts as read."""
        for name, value in self._values().items():
            if isinstance(what := ATTRIBUTES[name], Pass):
                yield what, value

    def _values(self) -> dict[str, Any]:
        """Everything that was asked for, by attribute."""
        return {name: value for name in ATTRIBUTES if (value := self.__dict__[name]) is not NOT_ASKED}

    def _replace(self, values: Mapping[str, Any]) -> Outputs:
        return Outputs(**{**self._values(), **values}, owner=self.owner, on_read=self.on_read)

    def get(self, need: Need) -> Any:
        """The output of one need, asked for or not; None where there is none. Does not count as read."""
        value = self.__dict__.get(KINDS[need].attribute, NOT_ASKED)  # what is the batch's has none
        return None if value is NOT_ASKED else value

    def with_values(self, values: Mapping[Need, Any]) -> Outputs:
        """The same outputs with other values for some needs."""
        return self._replace({KINDS[need].attribute: value for need, value in values.items()})

    def with_pass(self, other: Pass, outputs: Outputs) -> Outputs:
        """The same outputs with those of another pass beside them."""
        return self._replace({PASS_KINDS[other].attribute: outputs})

    def map(self, act: Callable[[Tensor], Tensor]) -> Outputs:
        """The same outputs with every tensor, in lists and other passes too, replaced by what `act` makes of it."""
        from torch import Tensor

        def apply(value: Any) -> Any:
            if isinstance(value, list):
                return [apply(item) for item in value]
            return act(value) if isinstance(value, Tensor) else value.map(act) if isinstance(value, Outputs) else value

        return self._replace({name: apply(value) for name, value in self._values().items()})

    def at_least_float32(self) -> Outputs:
        """The same outputs in float32 at least, so that a loss written without a thought of precision is computed in it."""
        import torch

        return self.map(lambda tensor: tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor)

    def restrict_to(self, needs: Need | NetworkNeeds, stages: Sequence[int] | None = None, *, owner: str | None = None) -> Outputs:
        """The outputs restricted to `needs` and to some of the stages, by index; `owner`: whose they are in error messages."""
        needs = NetworkNeeds.of(needs)
        values = {need: value for need, value in self.items() if need in needs}
        for maps in (Need.STAGES, Need.PREACT):
            if stages is not None and maps in values:
                values[maps] = [values[maps][i] for i in stages]
        if stages is not None and Need.NETWORK in values:
            values[Need.NETWORK] = values[Need.NETWORK].with_stages(stages)
        outputs = Outputs.of(values, owner=owner or self.owner, on_read=self.on_read)
        for other, its in self.passes():
            if other in needs:
                outputs = outputs.with_pass(other, its.restrict_to(needs.outputs, stages, owner=owner))
        return outputs


def with_passes(by_pass: Mapping[Pass, Outputs]) -> Outputs:
    """The first pass's outputs with those of the others beside them."""
    merged = by_pass[Pass.FIRST]
    for which, outputs in by_pass.items():
        if which is not Pass.FIRST:
            merged = merged.with_pass(which, outputs)
    return merged


_FIELDS = {kind_of(what).attribute: what for what in BY_WORD.values()}
ATTRIBUTES: Mapping[str, Need | Pass] = {name: _FIELDS[name] for name in Outputs.__dataclass_fields__ if name in _FIELDS}
"""what can be read of a network, and the need or the pass that declares it"""
ALIASES: Mapping[str, str] = {alias: name for name, what in ATTRIBUTES.items() for alias in kind_of(what).aliases}
"""what else these are called"""


def explain_unknown(owner: str, name: str, names: Sequence[str], aliases: Mapping[str, str], example: str) -> NoReturn:
    """Raise AttributeError for something that is not there, with the nearest name and all that can be read."""
    if name.startswith("_"):  # a protocol of Python's (copy, pickle), which asks for much and expects a plain no
        raise AttributeError(name)
    near = f"; did you mean {aliases[name.lower()]!r}?" if name.lower() in aliases else did_you_mean(name, names)
    from torch import Tensor

    if not near and hasattr(Tensor, name):
        near = f": it is not a tensor but holds several; write {owner}.{example}.{name}"
    raise AttributeError(add_clause(f"{owner} has no {name!r}{near}", f"it has: {', '.join(names)}"))


def _measures(value: Any) -> str:
    from torch import Tensor

    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    return f"[{', '.join(map(_measures, value))}]" if isinstance(value, list) else type(value).__name__
