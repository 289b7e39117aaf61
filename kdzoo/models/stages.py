"""How two networks' stages pair."""

from __future__ import annotations

import torch

from kdzoo.contract.shapes import Shapes
from kdzoo.runs.spec import Pairing


def pair_stages(student: Shapes, teacher: Shapes, pairing: Pairing) -> tuple[tuple[int, int], ...]:
    """Which student stage meets which teacher stage, shallow to deep, one to one and in order.

    `deep`: from the student's deepest stage on, each takes, of the teacher's stages shallower than the last one taken,
    the one nearest in reduction (the deeper of two equally near). `left` pairs by position, as published tables do.
    """
    if pairing == "left":
        return tuple((i, i) for i in range(min(len(student.stages), len(teacher.stages))))
    pairs: list[tuple[int, int]] = []
    limit = len(teacher.stages)
    for position in reversed(range(len(student.stages))):
        if limit == 0:
            break
        reduction = student.stages[position].reduction
        distance = [abs(_log_ratio(stage.reduction, reduction)) for stage in teacher.stages[:limit]]
        limit = max(range(limit), key=lambda t: (-round(distance[t], 6), t))
        pairs.append((position, limit))
    return tuple(reversed(pairs))


def _log_ratio(a: float, b: float) -> float:
    return float(torch.log2(torch.tensor(a / b, dtype=torch.float64)))
