"""What a result was made with: versions, builds, device, CPU, threads, commit."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

from kdzoo.files import PACKAGE
from kdzoo.runs.cpu import cpu_model, output_of
from kdzoo.version import VERSION


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """Versions, the device's and the CPU's name, what torch was built with, the number of threads, and kdzoo's commit in a checkout."""
    return {
        "kdzoo": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_build": torch_build(torch.__config__.show(), torch.version.git_version),
        "timm": version("timm"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "git": _commit(),
    }


def machine_name(device: torch.device) -> str:
    """The model of the GPU, or of the CPU where that is the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model() or "unknown CPU"


def torch_build(config: str, commit: str | None) -> str:
    """Commit, compiler and numerical libraries of a build of torch, from the text of torch.__config__.show().

    What depends on the machine (the CPU's capability) is left out, and so are the compiler's flags.
    """
    lines = [line.removeprefix("  - ").strip() for line in config.splitlines() if line.startswith("  - ")]
    rest = [line for line in lines if not line.startswith(("CPU capability", "Build settings"))]
    return "; ".join([f"commit {commit}" if commit else "commit unknown", *rest])


@cache
def _commit() -> str | None:
    checkout = PACKAGE.parent
    if not (checkout / ".git").exists():  # installed, perhaps below another project's repository
        return None
    return output_of("git", "-C", str(checkout), "rev-parse", "HEAD")
