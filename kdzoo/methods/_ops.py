"""Tensor operations that methods share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least: half precision is widened, float64 stays."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def taught(tensor: Tensor) -> Tensor:
    """What the teacher said: detached, in float32 at least."""
    return wide(tensor.detach())


def full_precision(tensor: Tensor) -> torch.autocast:
    """A block in which autocast does not lower matrix products and convolutions on the tensor's device."""
    return torch.autocast(tensor.device.type, enabled=False)


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (B, C, H, W) at one size: the larger is average-pooled to the smaller, each side by itself."""
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return _pooled(student, size), _pooled(teacher, size)


def _pooled(features: Tensor, size: tuple[int, int]) -> Tensor:
    return features if tuple(features.shape[-2:]) == size else F.adaptive_avg_pool2d(features, size)


def normalised(vectors: Tensor, eps: float = 1e-12) -> Tensor:
    """Rows of (..., D) divided by their L2 norm, or by `eps` where that is larger."""
    return F.normalize(vectors, dim=-1, eps=eps)
