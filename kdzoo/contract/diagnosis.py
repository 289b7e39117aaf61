"""What is wrong with a user's loss, in words: the line that failed, what was wrong there, and what to write instead."""

from __future__ import annotations

import builtins
import importlib.metadata
import inspect
import os
import re
import sys
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from kdzoo.contract.advice import Networks, advice_for
from kdzoo.contract.needs import Need, Pass
from kdzoo.errors import KdzooError, add_clause, did_you_mean
from kdzoo.text import first_line


def diagnose(error: BaseException, file: str, networks: Networks | None = None) -> str:
    """`my_loss.py:9: RuntimeError: ...: what to write instead`, for an error of the code in `file` or of the files beside it."""
    place = place_of(error, file)
    return f"{f'{place}: ' if place else ''}{in_words(error, networks)}"


def in_words(error: BaseException, networks: Networks | None = None) -> str:
    """An error and the advice that fits it, without its place."""
    if isinstance(error, KdzooError):
        return str(error)
    if isinstance(error, AttributeError) and error.obj is Need:  # whose own message is the name alone
        if str(error.name) in Pass.__members__:
            return f"kdzoo.Need has no {error.name}; it is a pass: write kdzoo.Pass.{error.name}"
        names = [name for name in Need.__members__ if name != "NOTHING"]
        return add_clause(f"kdzoo.Need has no {error.name}{did_you_mean(str(error.name), names)}", f"it has: {', '.join(names)}")
    text, advice = first_line(str(error)).rstrip(".,"), advice_for(error, networks)
    return f"{type(error).__name__}{f': {text}' if text else ''}{_suggestion(error)}{f'. {advice}' if advice else ''}"


def place_of(error: BaseException, file: str) -> str:
    """`my_loss.py:9`, the last line of the user's own code on the way to an error; empty where there is none."""
    frame = _last_frame(error.__traceback__, Path(file).parent if os.path.isabs(file) else None, file)
    return "" if frame is None else f"{short_path(frame[0].f_code.co_filename)}:{frame[1]}"


def _last_frame(trace: TracebackType | None, folder: Path | None, file: str) -> tuple[FrameType, int] | None:
    last = None
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name == file or (folder is not None and Path(name).parent == folder):
            last = (trace.tb_frame, trace.tb_lineno)
        trace = trace.tb_next
    return last


def short_path(path: str) -> str:
    """A path as a user would type it: from the working folder where it lies below that."""
    try:
        relative = os.path.relpath(path)
    except (ValueError, OSError):  # another drive, or a working folder that is gone
        return path
    return path if relative.startswith("..") or not os.path.isabs(path) else relative


def _suggestion(error: BaseException) -> str:
    """The nearest name for one that does not exist."""
    match error:
        case ModuleNotFoundError(name=str(name)):
            names = {*sys.stdlib_module_names, *importlib.metadata.packages_distributions()}
            near = did_you_mean(name.partition(".")[0], names)
            return near or f"; install it into this environment ({sys.prefix}), or remove the import"
        case NameError(name=str(name)):
            return did_you_mean(name, _names_in_reach(error.__traceback__))
        case AttributeError(name=str(name)) if "did you mean" not in str(error) and not str(error).startswith(
            ("student", "teacher", "batch")
        ):
            return _nearest_attribute(error.obj, name)
        case TypeError() if match := re.search(r"(\w+)\(\) got an unexpected keyword argument '(\w+)'", str(error)):
            return did_you_mean(match[2], _parameters_of(match[1], error.__traceback__))
    return ""


def _parameters_of(function: str, trace: TracebackType | None) -> list[str]:
    """The parameters of the function of this name that the failing line could call, in its module or in one that it imports."""
    frame = _innermost(trace)
    values = [] if frame is None else [*frame.f_globals.values()]
    modules = [value for value in values if inspect.ismodule(value)]
    candidates = [value for value in (*values, *(vars(module).get(function) for module in modules)) if inspect.isfunction(value)]
    return [name for value in candidates if value.__name__ == function for name in inspect.signature(value).parameters]


def _innermost(trace: TracebackType | None) -> FrameType | None:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return None if trace is None else trace.tb_frame


def _nearest_attribute(owner: Any, name: str) -> str:
    names = [attribute for attribute in dir(owner) if not attribute.startswith("_")]
    return did_you_mean(name, names)


def _names_in_reach(trace: TracebackType | None) -> set[str]:
    frame = _innermost(trace)
    return set() if frame is None else {*frame.f_locals, *frame.f_globals, *dir(builtins)}
