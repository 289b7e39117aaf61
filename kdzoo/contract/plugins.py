"""Loads a user's file, remembers it as the origin of what it registers, and tells how it failed."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from kdzoo.contract.diagnosis import in_words
from kdzoo.contract.faults import of_class_body
from kdzoo.contract.private_modules import Beside
from kdzoo.errors import InputError, collect_problems

_LOADING: ContextVar[str] = ContextVar("the plugin that is being loaded", default="")


def plugin_being_loaded() -> str:
    """The file of the plugin that is being loaded; empty where what is registered is known to this process alone."""
    return _LOADING.get()


def no_such_plugin(path: str | Path) -> str:
    """The message for a plugin whose file is missing."""
    return f"plugin: no such file: {path}"


def load_plugin(path: str | Path) -> None:
    """Run a user's file under a private module name, so that what it registers is known.

    Raises InputError with file and line when the file is missing, does not parse, fails, ends the process or leaves a
    global setting of torch's changed.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise InputError(no_such_plugin(path))
    if importlib.util.spec_from_file_location("plugin", file) is None:
        raise InputError(f"plugin: {path}: not a Python file; expected a name that ends in .py")
    from kdzoo.contract.guard import Interference, watch

    token = _LOADING.set(str(file))
    try:
        with watch(f"plugin {path}"):
            Beside(file).run()
    except SyntaxError as error:
        where = path if error.filename in (None, str(file)) else error.filename
        line = f" in `{error.text.strip()}`" if error.text and error.text.strip() else ""
        raise InputError(f"plugin: {where}:{error.lineno}: syntax error{line}: {error.msg}") from error
    except InputError:
        raise
    except Interference as error:
        line = f"plugin: {path}:{_line_in(file, error.__cause__)}: " if error.__cause__ is not None else ""
        raise InputError(f"{line}{error}") from error
    except (Exception, KeyboardInterrupt, GeneratorExit) as error:
        if not is_its_own(error):
            raise
        raise InputError(f"plugin: {path}:{_line_in(file, error)}: {_in_words(error)}") from error
    finally:
        _LOADING.reset(token)


def load_plugins(files: Iterable[str]) -> None:
    """Load every file; raises InputError with what is wrong with any of them: what they would register is unknown to the rest."""
    problems: list[str] = []
    for file in files:
        with collect_problems(problems):
            load_plugin(file)
    if problems:
        raise InputError(*problems)


def is_its_own(error: BaseException) -> bool:
    """Whether the code that was run raised this itself: a KeyboardInterrupt may be the user's Ctrl-C, where Python handles that."""
    return not isinstance(error, KeyboardInterrupt) or signal.getsignal(signal.SIGINT) is not signal.default_int_handler


def _in_words(error: BaseException) -> str:
    """What went wrong while a plugin was loaded, and what to write instead."""
    if advice := of_class_body(error):
        return advice
    usage = '; write @kdzoo.register("NAME") above a function or a class' if str(error).startswith("register()") else ""
    return f"{in_words(error)}{usage}"


def _line_in(file: Path, error: BaseException) -> int:
    """The last line of `file` on the way to the error."""
    line, step = 0, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == str(file):
            line = step.tb_lineno
        step = step.tb_next
    return line


@contextmanager
def of_nobody() -> Iterator[None]:
    """A block in which what is registered belongs to no plugin, though one may be loading."""
    token = _LOADING.set("")
    try:
        yield
    finally:
        _LOADING.reset(token)
