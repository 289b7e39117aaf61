"""What kdzoo says when it was asked for something it cannot do: every problem at once, with the nearest valid name."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

Value = TypeVar("Value", int, str)


class KdzooError(Exception):
    """Base of every error that is reported without a traceback."""


class InputError(KdzooError):
    """Bad input, found before any work: `problems` lists every fault, one line each."""

    def __init__(self, *problems: str) -> None:
        if not problems:
            raise ValueError("an InputError needs at least one problem")
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


class WorkFailed(KdzooError):
    """Work that had begun could not be finished, though nothing was wrong with what was asked for."""


class collect_problems:
    """`with collect_problems(problems):` collects the problems of an InputError and continues, so that all can be told at once."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, InputError):
            self._problems.extend(error.problems)
        return isinstance(error, InputError)


def raise_if_any(problems: Iterable[str | None], *more: str | None) -> None:
    """Raise an InputError with the problems that are not empty, each once; nothing happens where there are none."""
    if faults := [problem for problem in [*problems, *more] if problem]:
        raise InputError(*dict.fromkeys(faults))


FORMER_NAMES = {"teacher_memo": "teacher_cache", "resident": "image_cache"}
"""options under the names that they had, which no spelling leads to"""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest of the known names, or nothing where none is near."""
    names = list(known)
    present = FORMER_NAMES.get(name)
    near = [present] if present in names else difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def add_clause(text: str, clause: str) -> str:
    """`text; clause`, or `text? Clause` after a question such as that of `did_you_mean`; the text alone where there is no clause."""
    if not clause:
        return text
    return f"{text} {clause[0].upper()}{clause[1:]}" if text.endswith("?") else f"{text}; {clause}"


def unknown(what: str, name: str, known: Iterable[str], *, show: int = 12) -> str:
    """One sentence about an unknown name: what it was meant to be, the nearest name, and what exists."""
    names = sorted(known)
    text = ", ".join(names[:show]) + (f", ... ({len(names)} in all)" if len(names) > show else "")
    return add_clause(f"{what}: unknown {name!r}{did_you_mean(name, names)}", f"known: {text}" if names else "")


def problems_of(
    error: ValidationError,
    where: str = "",
    known: Iterable[str] = (),
    known_below: Callable[[tuple[int | str, ...]], list[str] | None] = lambda place: None,
) -> list[str]:
    """The faults pydantic found, one sentence each, as `where.field: expected ..., got ...`.

    For the nearest name of an unknown key, `known` are the keys of the model, and `known_below` says those at a place within it.
    """
    names = list(known)
    return [
        _sentence(fault, where, names if len(fault["loc"]) < 2 else known_below(fault["loc"][:-1]))
        for fault in error.errors(include_url=False)
    ]


_BOUNDS = {"greater_than": (">", "gt"), "greater_than_equal": (">=", "ge"), "less_than": ("<", "lt"), "less_than_equal": ("<=", "le")}


def repeated(values: Iterable[Value]) -> list[Value]:
    """The values that stand there twice or more, each once, in their order."""
    return [value for value, count in Counter(values).items() if count > 1]


LONGEST_VALUE = 80
"""characters of a value that a message repeats"""


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 20]}... ({len(text):,} characters)"


def _sentence(fault: ErrorDetails, where: str, known: list[str] | None) -> str:
    in_list = bool(fault["loc"]) and isinstance(fault["loc"][-1], int) and not isinstance(fault["input"], Mapping)
    keys = fault["loc"][:-1] if in_list else fault["loc"]  # of a list of values, its name
    place = ".".join([*([where] if where else []), *map(str, keys)])
    kind, context, got = fault["type"], fault.get("ctx", {}), _shortened(fault["input"])
    if kind == "extra_forbidden":
        if known is None:
            return f"{place}: unknown"
        takes = f"; known: {', '.join(known)}" if known else "; takes none"
        return f"{place}: unknown{did_you_mean(str(fault['loc'][-1]), known) or takes}"
    if kind == "missing":
        return f"{place}: missing"
    if kind in _BOUNDS:
        sign, key = _BOUNDS[kind]
        return f"{place}: expected a number {sign} {context[key]:g}, got {got}"
    if kind == "too_short":
        return f"{place}: expected at least {context['min_length']}, got {got}"
    if kind == "value_error":
        return f"{place}: {context['error']}" if place else str(context["error"])
    near = did_you_mean(str(fault["input"]), re.findall(r"'([^']*)'", context["expected"])) if kind == "literal_error" else ""
    words = re.sub("^Input should be ", "expected ", fault["msg"])
    return f"{place}: {words[0].lower()}{words[1:]}, got {got}{near}"
