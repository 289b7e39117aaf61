"""Targets of either kind, numbers of classes (int64) or measured numbers (float32), and which samples have none."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def is_labelled(targets: Tensor) -> Tensor:
    """Which samples have a target, (N,) bool: -1 stands for none where classes are numbered, NaN where numbers are measured.

    Of targets (N, C) in several columns, those that have one in any.
    """
    known = ~targets.isnan() if targets.is_floating_point() else targets >= 0
    return known if known.ndim == 1 else known.any(1)


def no_targets(like: Tensor, count: int) -> Tensor:
    """The targets of samples that have none, (count,) or (count, C)."""
    return like.new_full((count, *like.shape[1:]), math.nan if like.is_floating_point() else -1)
