"""Puts a mutant's code into the live functions of a module: what is imported and collected already needs no second import."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator, Sequence
from types import CodeType, FunctionType


class Unpatchable(Exception):
    """The sources differ in more than the inside of functions: a default, which is computed where the function is defined."""


def live_functions() -> list[FunctionType]:
    """All functions of this process that kdzoo defines."""
    return [value for value in gc.get_objects() if type(value) is FunctionType and (value.__module__ or "").startswith("kdzoo")]


def patch(functions: Sequence[FunctionType], before: str, after: str) -> None:
    """Gives functions of a module with the source `before` the code that they have in the source `after`."""
    codes = {_place(old): new for old, new in _changed_functions(compile(before, "", "exec"), compile(after, "", "exec"))}
    for function in functions:
        if (place := _place(function.__code__)) in codes:
            function.__code__ = codes[place]


def _place(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def _changed_functions(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """The functions of a module or class that differ, before and after."""
    inner = list(zip(_inner(old), _inner(new), strict=False))
    if _own(old) != _own(new) or len(_inner(old)) != len(_inner(new)):
        raise Unpatchable
    for one, other in inner:
        if one.co_flags & inspect.CO_OPTIMIZED:
            yield from _changed_closures(one, other)
        else:
            yield from _changed_functions(one, other)


def _changed_closures(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """A function and the functions inside it, where it differs."""
    if old.co_freevars != new.co_freevars:
        raise Unpatchable
    if _whole(old) != _whole(new):
        yield old, new
        for one, other in zip(_inner(old), _inner(new), strict=False):
            yield from _changed_closures(one, other)


def _inner(code: CodeType) -> list[CodeType]:
    return [value for value in code.co_consts if isinstance(value, CodeType)]


def _own(code: CodeType) -> tuple[object, ...]:
    """What a piece of code does, but for the code inside it."""
    constants = [repr(value) for value in code.co_consts if not isinstance(value, CodeType)]
    return code.co_code, code.co_names, code.co_varnames, constants


def _whole(code: CodeType) -> tuple[object, ...]:
    return _own(code), [_whole(inner) for inner in _inner(code)]
