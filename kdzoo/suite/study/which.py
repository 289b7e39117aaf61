"""Which runs of an earlier stage a later one takes. Free of torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from kdzoo.errors import repeated
from kdzoo.runs.fields import Integer, Spec
from kdzoo.suite.plan.config import NONE


def as_tuple(value: object) -> object:
    """A list as a tuple, anything else as it is."""
    return tuple(value) if isinstance(value, list) else value


def _as_seeds(value: object) -> object:
    return (value,) if isinstance(value, int) and not isinstance(value, bool) else as_tuple(value)


def _once_each(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if twice := repeated(seeds):
        raise ValueError(f"expected each seed once, got {', '.join(map(str, twice))} twice or more")
    return seeds


SeedList = Annotated[tuple[Integer, ...], BeforeValidator(_as_seeds), AfterValidator(_once_each), Field(min_length=1)]


class Of(Spec):
    """Runs of an earlier stage: those of a method, of a pair where the stage has several.

    setting: of several tried, the one with these values (`temperature`, `alpha`, `weight`, or a field of the method's);
    without it the one chosen on validation.
    """

    stage: str
    method: str = NONE
    pair: str | None = None
    setting: dict[str, JsonValue] = {}

    def __str__(self) -> str:
        return f"{'the student alone' if self.method == NONE else self.method} of stage {self.stage}"


class Which(Of):
    """Runs of an earlier stage with these seeds, which teach or whose setting is taken over."""

    seeds: SeedList = (0,)

    def __str__(self) -> str:
        runs = super().__str__()
        return runs if len(self.seeds) == 1 else f"an ensemble of {len(self.seeds)} seeds of {runs}"


class Runs(Of):
    """Runs of an earlier stage, with all of its seeds unless some are named, which a step reads."""

    seeds: SeedList | None = None
