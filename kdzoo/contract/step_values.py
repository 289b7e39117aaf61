"""Numbers that change from step to step, at places on the device that stay, so that a step can be recorded once and replayed."""

from __future__ import annotations

import torch
from torch import Tensor


class DeviceNumber:
    """A number on a device, set from the host without waiting for the device; to set it to what it is costs nothing."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.tensor: Tensor = torch.zeros((), device=device, dtype=dtype)
        self._value: float | None = None

    def set(self, value: float) -> None:
        if value != self._value:
            self.tensor.fill_(value)
            self._value = value
