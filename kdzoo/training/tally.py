"""The sums of an epoch's losses, kept on the device, and the first step at which one was NaN or infinite."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdzoo.contract.batch import Losses

TOTAL = "loss"
"""the name of the sum that is minimised, beside those of its parts"""
NEVER = torch.iinfo(torch.int64).max
"""the first bad step of a number that has been finite at every step so far"""


@dataclass(frozen=True)
class NonfiniteLoss:
    """The first step at which a loss was NaN or infinite, and which of its parts were; none where only their weighted sum was."""

    step: int
    parts: tuple[str, ...]
    whole: bool
    """whether all parts were: then it is no single term's doing"""

    def __str__(self) -> str:
        where = ", ".join(self.parts) or "none of its parts alone, but in their weighted sum"
        return f"the loss became NaN or infinite at step {self.step}, in {'all its parts: ' if self.whole else ''}{where}"


@dataclass
class Tally:
    """Sums over the steps of an epoch, kept on the device, for the loss and its parts in the order of their names.

    sums: in float64, of each mean times the samples of its step. bad: the first step at which each was NaN or infinite.
    """

    sums: dict[tuple[str, ...], Tensor] = field(default_factory=dict)
    samples: int = 0
    bad: dict[tuple[str, ...], Tensor] = field(default_factory=dict)

    def add(self, losses: Losses, samples: int, step: int | Tensor) -> None:
        """Add the losses of a step of so many samples; `count` counts these. step: its number, which may lie on the device."""
        names = (TOTAL, *losses.parts)
        values = torch.stack([losses.total.detach(), *(part.detach() for part in losses.parts.values())])
        if names not in self.sums:
            self.sums[names] = torch.zeros_like(values, dtype=torch.float64)
        if names not in self.bad:  # a checkpoint has the sums alone
            self.bad[names] = torch.full_like(values, NEVER, dtype=torch.int64)
        self.sums[names].add_(values, alpha=samples)
        finite = values - values == 0  # half as many kernels as torch.isfinite
        self.bad[names].clamp_(max=torch.where(finite, NEVER, step))

    def count(self, samples: int) -> None:
        """Count the samples of a step."""
        self.samples += samples

    def clear(self) -> None:
        """Begin the next epoch, with all sums where they are."""
        self.samples = 0
        for sums in self.sums.values():
            sums.zero_()
        for bad in self.bad.values():
            bad.fill_(NEVER)

    def first_nonfinite(self) -> NonfiniteLoss | None:
        """Where the loss first was NaN or infinite since the epoch began; waits for the device."""
        steps = [dict(zip(names, map(int, bad.tolist()), strict=True)) for names, bad in self.bad.items()]
        first = min(steps, key=lambda one: one[TOTAL], default=None)
        if first is None or first[TOTAL] == NEVER:
            return None
        parts = tuple(name for name, step in first.items() if name != TOTAL and step <= first[TOTAL])
        return NonfiniteLoss(first[TOTAL], parts, len(parts) == len(first) - 1 > 1)

    def means(self) -> dict[str, float]:
        """The mean over the epoch's samples of the loss and of each part, by name; waits for the device."""
        sums: Counter[str] = Counter()
        for names, totals in self.sums.items():
            for name, total in zip(names, totals.tolist(), strict=True):
                sums[name] += total
        return {name: total / max(self.samples, 1) for name, total in sums.items()}
