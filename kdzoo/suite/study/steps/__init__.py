"""Steps of a study: what is done with finished runs between benches. One file a kind, its key listed here. Free of torch."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from kdzoo.runs.fields import Spec
from kdzoo.suite.study.steps.average import Average
from kdzoo.suite.study.steps.calibrate import Calibrate
from kdzoo.suite.study.steps.evaluate import Evaluate
from kdzoo.suite.study.steps.specialists import Specialists
from kdzoo.suite.study.steps.step import Step

__all__ = ["StepKeys"]


class StepKeys(Spec):
    """The keys of a stage that name a step: one of them at most."""

    calibrate: Calibrate | None = None
    average: Average | None = None
    evaluate: Evaluate | None = None
    specialists: Specialists | None = None

    @model_validator(mode="after")
    def _one_step(self) -> Self:
        if len(kinds := [key for key in StepKeys.model_fields if getattr(self, key) is not None]) > 1:
            raise ValueError(f"expected one step a stage, got {' and '.join(kinds)}")
        return self

    @property
    def kind(self) -> str | None:
        """The key of its step; None for a bench."""
        return next((key for key in StepKeys.model_fields if getattr(self, key) is not None), None)

    @property
    def step(self) -> Step | None:
        step: Step | None = None if self.kind is None else getattr(self, self.kind)
        return step
