"""Values of one kind by name: methods, networks, data sets, pairs and recipes, all under the same rules.

A name means one thing: the same definition again (a plugin loaded twice, a notebook's cell run again) replaces the first,
another one under its name is refused, with both places. Every entry knows who registered it, so that a bench knows
which of them its worker processes will find.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from kdzoo.contract.plugins import plugin_being_loaded
from kdzoo.errors import InputError, unknown

Value = TypeVar("Value")


@dataclass(frozen=True)
class Definition:
    """Where something is defined: its file and its name there, and the place as messages tell it."""

    file: str
    name: str
    place: str

    def is_again(self, other: Definition) -> bool:
        """Whether one is the other loaded again: the same place, or the same name in another cell of a notebook."""
        from_cells = all("<" in one.file or "ipykernel" in one.file for one in (self, other))
        return self.name == other.name and (self.file == other.file or from_cells)


def definition_of(code: Any) -> Definition:
    """Where a function, a class or a callable object is defined."""
    code = code if inspect.isroutine(code) or inspect.isclass(code) else type(code)
    try:
        file = inspect.getsourcefile(code) or code.__module__
        return Definition(file, code.__qualname__, f"{file}:{inspect.getsourcelines(code)[1]}")
    except (OSError, TypeError):
        return Definition(code.__module__, code.__qualname__, f"{code.__module__}.{code.__qualname__}")


@dataclass(frozen=True)
class Entry(Generic[Value]):
    """A value, where it is defined, and who registered it.

    plugin: where other processes find it: None for kdzoo and installed packages, else a plugin's file, or empty for nowhere.
    """

    value: Value
    definition: Definition
    plugin: str | None


class Registry(Generic[Value]):
    """Values of one kind by name, in the order in which they were registered. kind: how messages begin."""

    def __init__(self, kind: str, own: Mapping[str, Value] | None = None) -> None:
        self.kind = kind
        self._entries = {name: Entry(value, Definition("kdzoo", name, "kdzoo"), None) for name, value in (own or {}).items()}

    def add(self, name: str, value: Value, definition: Definition, *, installed: bool = False) -> None:
        """Make a value known under a name; raises InputError where another one has it.

        installed: whether it comes with kdzoo or an installed package, so that every process finds it.
        """
        there = self._entries.get(name)
        if there is not None and there.value != value and not there.definition.is_again(definition):
            raise InputError(f"{self.kind}: {name!r} is {_refusal(there.definition, definition)}; choose another name")
        if there is None or there.value != value:
            self._entries[name] = Entry(value, definition, None if installed else plugin_being_loaded())

    def get(self, name: str) -> Value:
        """The value under a name; raises InputError with the nearest name."""
        entries = self._all()
        if name not in entries:
            raise InputError(unknown(self.kind, name, entries))
        return entries[name].value

    def find(self, name: str) -> Value | None:
        """The value under a name, or None where there is none."""
        entry = self._all().get(name)
        return None if entry is None else entry.value

    def names(self) -> list[str]:
        return list(self._all())

    def items(self) -> Iterator[tuple[str, Value]]:
        for name, entry in self._all().items():
            yield name, entry.value

    def values(self) -> Iterator[Value]:
        return (entry.value for entry in self._all().values())

    def plugin_of(self, name: str) -> str | None:
        """Where other processes find what has a name: None for kdzoo and installed packages, else a plugin's file, or empty for nowhere."""
        entry = self._all().get(name)
        return None if entry is None else entry.plugin

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def _all(self) -> Mapping[str, Entry[Value]]:
        """Every entry; a registry that loads some of its own does so here."""
        return self._entries


def _refusal(there: Definition, here: Definition) -> str:
    return "one of kdzoo's own" if there.file == "kdzoo" else f"defined twice: at {there.place} and at {here.place}"
