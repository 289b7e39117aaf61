"""The rule of a race in a study's file: which methods of an earlier stage get more seeds, and how many. Free of torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kdzoo.runs.fields import Integer, SeedCount, Spec
from kdzoo.suite.plan.config import CONTROLS


class Race(Spec):
    """Which methods of an earlier stage's refit are trained with more seeds, by a rule that is fixed before training.

    best: how many methods, those with the best mean headline of the refit on the test images; with neither best nor widest the
    controls alone get more. widest: how many of the others, those whose 95 % interval of the difference to `against` is the widest.
    Collapsed methods take no part. seeds, control_seeds: how many these methods, and the student alone and plain KD, have in the
    end, those of the refit among them.
    """

    stage: str
    best: Annotated[Integer, Field(ge=0)]
    widest: Annotated[Integer, Field(ge=0)] = 0
    against: Literal["hinton", "none"] = "hinton"
    seeds: SeedCount
    control_seeds: SeedCount | None = None

    @model_validator(mode="after")
    def _takes_some(self) -> Self:
        if not self.chooses and self.control_seeds is None:
            raise ValueError("expected best or widest to be at least 1, or control_seeds")
        if self.control_seeds is not None and self.control_seeds < self.seeds:
            raise ValueError(f"control_seeds: expected at least as many as seeds ({self.seeds}), got {self.control_seeds}")
        return self

    @property
    def chooses(self) -> bool:
        """Whether methods are chosen; else only the controls get more seeds."""
        return self.best + self.widest > 0

    def seeds_for(self, method: str) -> int:
        """How many seeds a method of the race has in the end."""
        return (self.control_seeds or self.seeds) if method in CONTROLS else self.seeds
