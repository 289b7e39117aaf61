"""A learnable map from the student's width to the teacher's, for methods that compare the two."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdzoo.contract.shapes import StageShape


def projector(student: int | StageShape, teacher: int | StageShape) -> nn.Module:
    """Make a layer from the student's width to the teacher's, in a method's `build`.

    Of two widths (`student.embedding`, `teacher.embedding`): a linear layer, (B, D_s) to (B, D_t).
    Of two stages (`student.stages[-1]`, `teacher.stages[-1]`): a 1x1 convolution, (B, C_s, H_s, W_s) to (B, C_t, H_t, W_t). A
    larger map is average-pooled to the teacher's size first, a smaller one is resized to it afterwards (bilinear).
    It computes in float32 at least, under autocast too. This is the regressor of FitNets (Romero et al., 2015) without batch norm.
    Raises TypeError for a width beside a stage.
    """
    if isinstance(student, StageShape) and isinstance(teacher, StageShape):
        return _StageProjector(student.channels, teacher.channels, (teacher.height, teacher.width))
    if isinstance(student, int) and isinstance(teacher, int):
        return _Projector(nn.Linear(student, teacher))
    raise TypeError(f"projector: expected two widths or two stages, got {student!r} and {teacher!r}")


class _Projector(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return cast(Tensor, self.layer(features if features.dtype == torch.float64 else features.float()))


class _StageProjector(_Projector):
    def __init__(self, student: int, teacher: int, size: tuple[int, int]) -> None:
        super().__init__(nn.Conv2d(student, teacher, kernel_size=1))
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        smaller = (min(features.shape[2], self.size[0]), min(features.shape[3], self.size[1]))
        projected = super().forward(F.adaptive_avg_pool2d(features, smaller) if smaller != features.shape[2:] else features)
        return projected if smaller == self.size else F.interpolate(projected, self.size, mode="bilinear", align_corners=False)
