"""Targets of either kind, numbers of classes (int64) or measured numbers (float32), and which samples have none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def is_labelled(targets: Tensor) -> Tensor:
    """Which samples have a target, (N,) bool: -1 stands for none where classes are numbered, NaN where numbers are measured."""
    return ~targets.isnan() if targets.is_floating_point() else targets >= 0


def no_targets(like: Tensor, count: int) -> Tensor:
    """The targets (count,) of samples that have none."""
    return like.new_full((count,), math.nan if like.is_floating_point() else -1)
