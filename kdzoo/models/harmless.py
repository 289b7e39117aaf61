"""The few types that training scripts pickle beside their weights, and that torch may rebuild when it runs no code."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np


def _scalar(dtype: np.dtype[Any], content: bytes) -> Any:
    """A number as numpy pickles it; one of Python objects is refused, since such a content is a pickle of its own."""
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise ValueError("a numpy scalar that is not a number")
    return np.frombuffer(content, dtype=dtype, count=1)[0]


def _dictionary(factory: object = None) -> dict[Any, Any]:
    """A defaultdict without its default: torch fills plain dictionaries only, and nobody asks this one for what is not there."""
    return {}


@cache
def harmless_types() -> tuple[tuple[Callable[..., Any], str], ...]:
    """What may stand in a checkpoint beside tensors, each under the names that Python, numpy and Windows pickle it by.

    Options (argparse.Namespace, SimpleNamespace), numpy scalars, defaultdicts, and paths, which become pure ones: nothing
    here opens a file or calls what the pickle names.
    """
    plain: tuple[type, ...] = (list, dict, int, float, str, bool, tuple)
    numbers = [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
    return (
        (argparse.Namespace, "argparse.Namespace"),
        (SimpleNamespace, "types.SimpleNamespace"),
        (_dictionary, "collections.defaultdict"),
        *((one, f"builtins.{one.__name__}") for one in plain),
        *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
        (np.dtype, "numpy.dtype"),
        *((one, f"numpy.dtypes.{one.__name__}") for one in numbers),
        *((pathlib.PurePosixPath, f"pathlib.{home}{name}") for home in ("", "_local.") for name in ("PosixPath", "PurePosixPath")),
        *((pathlib.PureWindowsPath, f"pathlib.{home}{name}") for home in ("", "_local.") for name in ("WindowsPath", "PureWindowsPath")),
    )
