"""The pure functions of the methods: `kdzoo.functional.NAME` is the function that bears its method's name in that method's file."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from torch import Tensor

from kdzoo import methods
from kdzoo.errors import unknown


@cache
def names() -> tuple[str, ...]:
    """The methods that have a function, sorted; one that is trained in stages of other methods has none."""
    files = sorted(module.name for module in iter_modules(methods.__path__))
    return tuple(name for name in files if hasattr(import_module(f"kdzoo.methods.{name}"), name))


def __getattr__(name: str) -> Callable[..., Tensor]:
    if name.startswith("__"):  # Python's own questions to a module
        raise AttributeError(f"module 'kdzoo.functional' has no attribute {name!r}")
    if name not in names():
        raise AttributeError(unknown("kdzoo.functional", name, names()))
    function: Callable[..., Tensor] = getattr(import_module(f"kdzoo.methods.{name}"), name)
    return function


def __dir__() -> list[str]:
    """The functions alone."""
    return list(names())
