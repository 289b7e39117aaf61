"""The clock of a user's own loop: the step, and the share of the training where the loop has set it."""

from __future__ import annotations

from typing import Any

from kdzoo.contract.batch import Progress
from kdzoo.contract.needs import NotProvided
from kdzoo.errors import InputError

ROUNDING = 1e-6
"""so that 29 / 100 of 100 epochs, 28.999999999999996 in binary fractions, is epoch 29"""


class LoopClock(Progress):
    """The clock of a loop that says which share of the training is done; raises NotProvided for what the loop has not set.

    `step` is how many batches the losses were computed of in training mode.
    """

    def __init__(self, calls: int, share: float | None, epochs: int | None) -> None:
        self.__dict__.update(step=calls, _share=share, _epochs=epochs)

    @property
    def progress(self) -> float:
        share: float | None = self.__dict__["_share"]
        if share is None:
            raise NotProvided(
                "reads clock.progress: set distiller.progress to the share of the training that is done, 0 to 1, as it goes on"
            )
        return share

    @property
    def epochs(self) -> int:
        epochs: int | None = self.__dict__["_epochs"]
        if epochs is None:
            raise NotProvided("counts epochs: pass epochs=, how many there are, and set distiller.progress to the share that is done")
        return epochs

    @property
    def epoch(self) -> int:
        return min(int(self.epochs * self.progress + ROUNDING), self.epochs - 1)

    @property
    def steps(self) -> int:
        raise NotProvided("reads clock.steps, which a loop of one's own does not say: clock.progress is the share that is done")


def validate_share(value: Any) -> None:
    """Raises InputError for anything but a share of the training, a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(f"progress: expected a number in [0, 1], the share of the training that is done, got {value!r}")
