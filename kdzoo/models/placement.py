"""Where and how runs are executed: device, threads, memory layout, precision. None of it is part of a run's id."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from kdzoo.models.network import Network
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.recipe import Recipe


@dataclass(frozen=True)
class Placement:
    """A worker's options, and the device of torch that they name."""

    options: WorkerOptions

    @property
    def device(self) -> torch.device:
        return torch.device(self.options.device)

    def place(self, network: Network, precision: str) -> Network:
        """The network on the device, in the memory layout asked for or, unless asked, in the one that pays.

        Channels last pays on CPUs (a step of the CIFAR networks takes 0.5 to 0.9 of the time) and, on GPUs, in half
        precision. Modules given from Python keep theirs: they may look at a map with `view`.
        """
        pays = network.is_timm and (self.device.type == "cpu" or precision != "float32")
        channels_last = pays if self.options.channels_last is None else self.options.channels_last
        network.to(self.device)
        if channels_last:
            network.to(memory_format=torch.channels_last)
        return network

    @property
    def arithmetic(self) -> dict[str, Any]:
        """What decides the last bits of a forward besides the network and its input."""
        capability = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
        return {
            "device": self.device.type,
            "capability": capability,
            "threads": self.options.threads,
            "channels_last": self.options.channels_last,
        }


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    """The recipe's precision for a forward; losses are computed outside of it."""
    if recipe.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, recipe.precision))


BFLOAT16_UNITS = {"AVX512-BF16": "_is_avx512_bf16_supported", "AMX": "_is_amx_tile_supported"}
"""instructions of x86 CPUs that multiply bfloat16, and the function of torch.cpu that tells whether this one has them"""


def bfloat16_units() -> tuple[str, ...] | None:
    """This CPU's instructions for bfloat16 by name; None where torch does not say, as on other CPUs than x86."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    tests = {name: getattr(torch.cpu, function, None) for name, function in BFLOAT16_UNITS.items()}
    if None in tests.values():
        return None
    return tuple(name for name, has in tests.items() if has is not None and has())


def why_slow(precisions: Iterable[str], device: torch.device) -> str | None:
    """A note on half precision on a CPU without instructions for it; None where there is nothing to note."""
    half = sorted(set(precisions) - {"float32"})
    if device.type != "cpu" or not half or bfloat16_units() != ():
        return None
    return (
        f"precision {' and '.join(half)}: this CPU has no instructions for it ({' or '.join(BFLOAT16_UNITS)}), so that steps take several "
        "times as long as in float32"
    )
