"""How much memory is free where this process runs, and what part of it a cohort may hold."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from kdzoo.files import read_text
from kdzoo.runs.options import WorkerOptions

COHORT_SHARE = 0.5
"""of what is free at the start which cohorts may hold, all processes together"""


def memory_of_cohort(options: WorkerOptions) -> int:
    """Bytes that a cohort may hold: as its driver has measured, or, where the driver's machine is another, a share of what is free here."""
    return options.memory if options.memory is not None else int(COHORT_SHARE * free_memory(options.device))


def has_device(device: str) -> bool:
    """Whether this machine has a device, which workers on other machines may have though it has not."""
    return not device.startswith("cuda") or torch.cuda.is_available()


def free_memory(device: str) -> int:
    """Bytes that are free on a device of this machine, or of its memory where that is a CPU or is not there."""
    if device.startswith("cuda") and has_device(device):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    return available_memory(Path("/proc/meminfo"))


def available_memory(meminfo: Path) -> int:
    """Bytes of this machine's memory that programs may still take, which files that were read do not lessen; without Linux, all of it."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", read_text(meminfo), re.MULTILINE)
    except OSError:
        found = None
    return 1024 * int(found[1]) if found is not None else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
