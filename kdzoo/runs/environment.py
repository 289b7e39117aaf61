"""What a result was made with: versions, device, threads, commit."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

from kdzoo.files import PACKAGE
from kdzoo.version import VERSION


def environment(device: torch.device, threads: int) -> dict[str, Any]:
    """Versions, the device's name, the number of threads, and kdzoo's commit where it runs from a checkout."""
    return {
        "kdzoo": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": version("timm"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": threads,
        "git": _commit(),
    }


@cache
def _commit() -> str | None:
    checkout = PACKAGE.parent
    if not (checkout / ".git").exists():  # installed, perhaps below another project's repository
        return None
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None
