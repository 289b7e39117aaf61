"""What makes a host wait for a GPU: a number that is read back, a result whose size depends on numbers, a constant sent over.

These are found on a CPU too, where they cost nothing: each is an operation of its own.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

PACKAGE = "/kdzoo/"
READS = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "repeat_interleave", "bincount", "lift_fresh"}
"""operators that read numbers back or, `lift_fresh`, make a tensor of Python's numbers"""
DATA_DEPENDENT_SIZE = ("_unique", "unique_")
"""how the names of operators begin whose result has a size that depends on the numbers"""
INDEXES = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""operators that wait for the device where an index is a mask"""
TENSOR_METHODS = {"tolist", "numpy", "cpu"}
"""methods of a tensor that read it back without an operator, which only a function mode sees"""


@contextmanager
def device_reads() -> Iterator[list[str]]:
    """The places of the package, as `FILE: OPERATOR`, at which a block makes the host wait for the device."""
    found: list[str] = []
    with _Operators(found), _Functions(found):
        yield found


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, found: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = found

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        by_mask = name in INDEXES and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if name in READS or name.startswith(DATA_DEPENDENT_SIZE) or by_mask:
            self.found.append(f"{_place()}: {name}")
        return function(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") in TENSOR_METHODS:
            self.found.append(f"{_place()}: {function.__name__}")
        return function(*args, **(kwargs or {}))


def _place() -> str:
    """The file of the package that is innermost on the stack."""
    files = [frame.filename for frame in traceback.extract_stack() if PACKAGE in frame.filename and frame.filename != __file__]
    return files[-1].rpartition(PACKAGE)[2] if files else "outside"
