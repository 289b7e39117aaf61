"""Where the time of a kdzoo step goes, from a profile: networks, loss, backward, and all that is neither network nor loss."""

from __future__ import annotations

import cProfile
import pstats
from dataclasses import dataclass
from typing import Any

import torch
from speed_clock import Side, spend, synchronise
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

PARTS = {
    "networks": ("kdzoo/models/network.py", "forward"),
    "loss": ("kdzoo/contract/objective.py", "forward"),
    "backward": ("torch/_tensor.py", "backward"),
    "cache": ("kdzoo/teachers/cache.py", "read"),
    "views": ("kdzoo/data/epoch.py", "gather"),
    "optimizer": ("torch/optim/optimizer.py", "wrapper"),
}
"""which function's time, with all that it calls, is whose"""
NETWORK_AND_LOSS = ("networks", "loss", "backward")


@dataclass(frozen=True)
class Share:
    """Seconds of a step by part, as the host spends them; `rest` is Python between the parts.

    busy: the share of the time in which the accelerator computed; None on a CPU, where the host is what computes.
    """

    seconds: dict[str, float]
    busy: float | None

    @property
    def other(self) -> float:
        """The share of the step that is neither network nor loss."""
        whole = sum(self.seconds.values())
        return 1 - sum(self.seconds[name] for name in NETWORK_AND_LOSS) / whole

    def record(self) -> dict[str, Any]:
        return {"step_seconds": self.seconds, "neither_network_nor_loss": self.other, "device_busy": self.busy}


def share_of(side: Side, steps: int, device: torch.device) -> Share:
    """The profile of so many steps, after those that settle the side."""
    spend(side, side.settle, device)
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(steps):
        side.step()
    synchronise(device)
    profiler.disable()
    stats = pstats.Stats(profiler)
    found = dict.fromkeys(PARTS, 0.0)
    for (file, _, function), (_, _, _, cumulative, _) in stats.stats.items():  # type: ignore[attr-defined]
        for name, (owner, called) in PARTS.items():
            if function == called and file.replace("\\", "/").endswith(owner):
                found[name] += cumulative / steps
    whole = stats.total_tt / steps  # type: ignore[attr-defined]
    return Share({**found, "rest": max(0.0, whole - sum(found.values()))}, busy_share(side, steps, device))


def busy_share(side: Side, steps: int, device: torch.device) -> float | None:
    """The time that kernels took over the time that passed, or None without an accelerator."""
    if device.type != "cuda":
        return None
    whole, _ = spend(side, steps, device)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        spend(side, steps, device)
    kernels = [e for e in seen.key_averages() if e.device_type == DeviceType.CUDA and not getattr(e, "is_user_annotation", False)]
    return sum(event.self_device_time_total for event in kernels) / 1e6 / whole
