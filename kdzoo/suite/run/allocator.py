"""The C library's allocator in a process that trains: what a step frees stays with the process, for the next step. Free of torch.

glibc gives large blocks back to the system as they are freed, and asks for them again in the next step, whose every page is then
a fault. Other C libraries are left as they are, and so is a process whose environment says how glibc is to allocate (MALLOC_...,
GLIBC_TUNABLES).
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

TRIM_THRESHOLD, MAP_THRESHOLD = -1, -3
"""glibc's numbers of the two parameters (malloc.h)"""
MOST_FREE = 2**31 - 1
"""bytes at the heap's end that are kept: the largest int"""
LARGEST_BLOCK = 2**30
"""bytes up to which a block comes from the heap, not from a mapping of its own"""


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees; whether it will."""
    glibc = _glibc()
    if glibc is None or any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    return all([glibc.mallopt(TRIM_THRESHOLD, MOST_FREE), glibc.mallopt(MAP_THRESHOLD, LARGEST_BLOCK)])


def return_freed_memory() -> None:
    """Give the memory that is free back to the system, such as after the last step of a cohort."""
    if (glibc := _glibc()) is not None:
        glibc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library of this process where it is glibc."""
    if os.name != "posix":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
