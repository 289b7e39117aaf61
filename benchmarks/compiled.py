"""Does torch.compile pay? A student's forward and backward, eager and compiled, with the time that compiling takes.

    python benchmarks/compiled.py                      # resnet20 and resnet8x4 at batch 64, one thread, into results/speed/

Steps take turns; medians of processor time. `breaks_even_after` is the number of steps after which a compiled run has
caught up with an eager one, or none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from speed_report import machine
from torch import Tensor, nn

from kdzoo.models.network import build_network
from kdzoo.spec import NetworkSpec


def step(network: nn.Module, images: Tensor, targets: Tensor) -> float:
    """Processor seconds of one forward and backward."""
    began = time.process_time()
    F.cross_entropy(network(images), targets).backward()
    network.zero_grad(set_to_none=True)
    return time.process_time() - began


def compare(name: str, batch: int, rounds: int) -> dict[str, Any]:
    """Medians of an eager and a compiled step of one network, and what compiling took until the third step was done."""
    spec = NetworkSpec(name=name, classes=100)
    network = build_network(spec, channels=3, side=32, mean=(0.5,) * 3, std=(0.25,) * 3, seed=0).model
    network.train().to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(100, (batch,))
    compiled = torch.compile(network)
    began = time.perf_counter()
    for _ in range(3):
        step(compiled, images, targets)
    compiling = time.perf_counter() - began
    step(network, images, targets)
    sides = {"eager": network, "compiled": compiled}
    seconds = {side: [step(module, images, targets) for _ in range(1)] for side, module in sides.items()}
    for _ in range(rounds):
        for side, module in sides.items():
            seconds[side].append(step(module, images, targets))
    median = {side: statistics.median(values) for side, values in seconds.items()}
    gain = median["eager"] - median["compiled"]
    return {
        "network": name,
        "batch": batch,
        "eager_seconds": median["eager"],
        "compiled_seconds": median["compiled"],
        "compile_seconds": compiling,
        "breaks_even_after": round(compiling / gain) if gain > 0 else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet8x4"], help="students (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="images of a step (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="steps of each side (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), help="the folder of compiled.json (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = [compare(name, options.batch, options.rounds) for name in options.networks]
    options.out.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine(torch.device("cpu"), 1), "cells": found}
    (options.out / "compiled.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    for cell in found:
        print(
            f"{cell['network']}: eager {1e3 * cell['eager_seconds']:.1f} ms, compiled {1e3 * cell['compiled_seconds']:.1f} ms, "
            f"compiling {cell['compile_seconds']:.0f} s, breaks even after {cell['breaks_even_after']} steps"
        )


if __name__ == "__main__":
    main()
