"""What bounds a step on a GPU: kernels that are launched, times that the host waits, and how long the device computes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from speed_clock import Side, spend
from speed_share import busy_share
from torch.profiler import ProfilerActivity, profile

STEPS = 10
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero")
"""operators that copy a number to the host, and wait for all that was asked of the device before"""


def bounds_of(side: Side, device: torch.device, steps: int = STEPS) -> dict[str, Any]:
    """Launches, waits and reads of a step, means over `steps`, and the share of the time in which the device computed (None on a CPU)."""
    spend(side, max(side.settle, 2), device)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities) as seen:
        seconds, images = spend(side, steps, device)
    counts: Counter[str] = Counter()
    for event in seen.key_averages():
        counts[event.key] += event.count
    per_step = {name: counts[name] / steps for name in (*LAUNCHES, *WAITS, *READS) if counts[name]}
    own_wait = 2 / steps if device.type == "cuda" else 0.0  # the clock waits for the device before and after
    waits = sum(per_step.get(name, 0.0) for name in WAITS) - own_wait
    return {
        "steps": steps,
        "images_per_second_profiled": images / seconds,
        "operators": sum(count for name, count in counts.items() if name.startswith("aten::")) / steps,
        "launches": sum(per_step.get(name, 0.0) for name in LAUNCHES),
        "waits": max(waits, 0.0),
        "reads": sum(per_step.get(name, 0.0) for name in READS),
        "calls": per_step,
        "device_busy": busy_share(side, steps, device),
    }
