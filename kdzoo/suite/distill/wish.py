"""What a distillation is asked for, from the command line and from Python alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdzoo.errors import InputError
from kdzoo.sizes import seconds_of
from kdzoo.suite.plan.config import DISTILL_METHOD, DISTILL_RECIPE, DISTILL_STUDENT

if TYPE_CHECKING:  # which bring torch
    from kdzoo.suite.export.export import Format
    from kdzoo.suite.export.int8 import Way


@dataclass(frozen=True)
class Wish:
    """What a distillation is asked for, from the command line and from Python alike; None leaves an option at its default.

    results, name: its bench is the folder `name` in `results`. licence: as `BenchConfig.licence`.
    """

    data: str
    teacher: str
    results: Path
    student: str = DISTILL_STUDENT
    name: str = "runs"
    method: str = DISTILL_METHOD
    recipe: str = DISTILL_RECIPE
    epochs: int | None = None
    seconds: float | None = None
    """how long it may take; the number of epochs follows from it"""
    teacher_epochs: int | None = None
    """of a teacher that is trained first; None for as many as its students have, or its recipe says"""
    lr: float | None = None
    image_size: int | None = None
    seed: int = 0
    execution: Mapping[str, Any] = field(default_factory=dict)
    """how it is executed: keys of a bench such as device and threads, with their values"""
    skip_unreadable: bool = False
    format: Format = "timm"
    """in which the student is written too, into a folder of that name beside the one that timm reads"""
    int8: Way | None = None
    """how a graph in 8 bits is made too; None for none"""
    licence: str | None = None

    def options(self, teacher: str, image_size: int | None) -> dict[str, Any]:
        """The options of the bench that trains it, with the teacher as a request and the side of the images that the networks see."""
        plain_options = {"epochs": self.epochs, "lr": self.lr, "licence": self.licence}
        recipe_keys = {"recipe.augment.size": image_size, "teacher_recipe.epochs": self.teacher_epochs}
        return {
            "name": self.name,
            "results": str(self.results),
            "data": self.data,
            "teacher": teacher,
            "student": self.student,
            "methods": [self.method],
            "recipe": self.recipe,
            "seeds": [self.seed],
            "refit": False,
            "fine_tune": True,
            **self.execution,
            "jobs": 1,
            "keep": ["student", "predictions"],
            "skip_unreadable": self.skip_unreadable,
            **{key: value for key, value in plain_options.items() if value is not None},
            "set": {key: value for key, value in recipe_keys.items() if value is not None},
        }


def seconds_in(text: str) -> float:
    """The seconds of a time such as `2h`; raises InputError for what is none."""
    seconds = seconds_of(text)
    if seconds is None:
        raise InputError(f"time: expected a time such as 45m, 2h or 1h30m, got {text!r}")
    return seconds
