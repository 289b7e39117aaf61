"""Do torch.compile and CUDA graphs pay? A student's forward and backward with and without, the time to make them counted.

    python benchmarks/compiled.py                      # resnet20 and resnet8x4 at batch 64, one thread, into results/speed/
    python benchmarks/compiled.py --device cuda        # and as CUDA graphs

`compiled` is what `kdzoo bench --compile` does. Steps take turns; medians. `breaks_even_after` is the number of steps
after which a run that was compiled first has caught up with an eager one, or none. Nothing that was compiled before is used.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from speed_clock import synchronise
from speed_report import machine
from torch import Tensor

from kdzoo.models.build import build_network
from kdzoo.models.network import Network
from kdzoo.runs.spec import NetworkSpec

Forward = Callable[[Tensor], Tensor]
"""uint8 images -> class scores"""

WARM_UP = 3
"""steps in which compiling happens, and recording a graph where there is one"""


def step(student: Forward, images: Tensor, targets: Tensor) -> float:
    """Seconds of one forward and backward: the processor's on a CPU, so that a busy machine counts little, else the clock's."""
    clock = time.process_time if images.device.type == "cpu" else time.perf_counter
    synchronise(images.device)
    began = clock()
    F.cross_entropy(student(images), targets).backward()
    synchronise(images.device)
    return clock() - began


def sides_of(network: Network, batch: int, device: torch.device) -> dict[str, Forward]:
    """A student as it is and compiled; on a GPU also replayed from CUDA graphs."""
    compiled = copy.deepcopy(network)
    compiled.compiled_batch_size = batch
    sides: dict[str, Forward] = {"eager": network.logits, "compiled": compiled.logits}
    if device.type == "cuda":
        sides["graphs"] = torch.compile(copy.deepcopy(network).logits, mode="reduce-overhead")
    return sides


def compare(name: str, batch: int, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """A record for each side of one network: its median step, what making it took, and when it has caught up with eager."""
    spec = NetworkSpec(name=name, classes=100)
    network = build_network(spec, channels=3, side=32, mean=(0.5,) * 3, std=(0.25,) * 3, seed=0)
    network.train().to(device, memory_format=torch.channels_last)
    images = torch.randint(256, (batch, 3, 32, 32), dtype=torch.uint8, device=device)
    targets = torch.randint(100, (batch,), device=device)
    sides, making = sides_of(network, batch, device), {}
    for side, student in sides.items():
        began = time.perf_counter()
        for _ in range(WARM_UP):
            step(student, images, targets)
        making[side] = time.perf_counter() - began
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, student in sides.items():
            seconds[side].append(step(student, images, targets))
    median = {side: statistics.median(values) for side, values in seconds.items()}
    return [
        {
            "network": name,
            "batch": batch,
            "side": side,
            "step_seconds": median[side],
            "making_seconds": making[side] - making["eager"],
            "breaks_even_after": _breaks_even(making[side] - making["eager"], median["eager"] - median[side]),
        }
        for side in sides
    ]


def _breaks_even(making: float, gain: float) -> int | None:
    """Steps after which `making` seconds are earned back at `gain` seconds a step; None where they never are."""
    return max(round(making / gain), 0) if gain > 0 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet8x4"], help="students (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="images of a step (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=31, help="steps of each side (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), help="the folder of compiled.json (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        found = [cell for name in options.networks for cell in compare(name, options.batch, options.rounds, device)]
    options.out.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine(device, 1), "cells": found}
    (options.out / f"compiled-{device.type}.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    for cell in found:
        even = cell["breaks_even_after"]
        words = "" if cell["side"] == "eager" else f", made in {cell['making_seconds']:.0f} s, breaks even after {even} steps"
        print(f"{cell['network']} {cell['side']}: {1e3 * cell['step_seconds']:.1f} ms a step{words}")


if __name__ == "__main__":
    main()
