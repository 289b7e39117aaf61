"""How long a network takes for a batch on this machine."""

from __future__ import annotations

import statistics
import time

import torch

from kdzoo.models.network import Network

WARM_UP = 3
REPEATS = 20
LONGEST_SECONDS = 5.0


@torch.no_grad()
def milliseconds(network: Network, image_shape: tuple[int, int, int], batch: int, device: torch.device) -> float:
    """Median milliseconds of a forward of `batch` images, over 20 repeats (fewer where they take over five seconds)."""
    network = network.to(device).eval()
    images = torch.zeros(batch, *image_shape, dtype=torch.uint8, device=device)
    times: list[float] = []
    began = time.perf_counter()
    for _ in range(WARM_UP + REPEATS):
        start = time.perf_counter()
        network.logits(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
        if time.perf_counter() - began > LONGEST_SECONDS and len(times) > WARM_UP:
            break
    return 1000 * statistics.median(times[WARM_UP:])
