"""Python's cyclic garbage collection, paused where it finds nothing. Free of torch."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause the collection of cycles while many objects are made that stay, such as a plan, records or imported modules.

    Every collection looks at all objects that are there, which is a third of the time of a plan of many thousand runs.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
