"""How long a network takes for a batch on this machine, and how busy the machine was."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from kdzoo.contract.objective import Deployed
from kdzoo.models.network import Network

WARM_UP = 3
REPEATS = 50
LONGEST_SECONDS = 5.0
PROBE_SECONDS = 1.0
"""the longest that the latency in a run's cost takes to measure"""


@dataclass(frozen=True)
class Load:
    """How busy a machine is: processes that run or wait for a core, mean of the last minute, and its cores."""

    processes: float
    cores: int

    def __str__(self) -> str:
        busy = "; other programs were running, so these times may be too long" if self.processes > self.cores else ""
        return f"load average {self.processes:.1f} on {self.cores} core{'' if self.cores == 1 else 's'}{busy}"


def machine_load() -> Load | None:
    """The load of this machine; None where the system does not tell."""
    if not hasattr(os, "getloadavg"):
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Load(os.getloadavg()[0], cores)


@torch.no_grad()
def milliseconds(
    network: Network | Deployed, image_shape: tuple[int, int, int], batch: int, device: torch.device, seconds: float = LONGEST_SECONDS
) -> float:
    """The shortest of many forwards of `batch` images in evaluation mode, in milliseconds (`shortest_milliseconds`)."""
    network = network.to(device).eval()
    images = torch.zeros(batch, *image_shape, dtype=torch.uint8, device=device)

    def forward() -> None:
        network.logits(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return shortest_milliseconds(forward, seconds)


def shortest_milliseconds(call: Callable[[], object], seconds: float = LONGEST_SECONDS) -> float:
    """The shortest of up to 50 calls, in milliseconds; fewer where they take over so many seconds together.

    The minimum, since whatever else a machine does can only add to the time of a call.
    """
    times: list[float] = []
    began = time.perf_counter()
    for _ in range(WARM_UP + REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        if time.perf_counter() - began > seconds and len(times) > WARM_UP:
            break
    return 1000 * min(times[WARM_UP:])
