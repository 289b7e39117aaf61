"""The verbs of `kdzoo`, each imported when it is first asked for: one verb does not wait for the imports of the others."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

import typer
from typer.main import get_command

from kdzoo.cli.declare import EXIT_CODES, Command

PANELS: dict[str, tuple[str, ...]] = {
    "Train and compare": ("bench", "status", "leaderboard", "compare", "report", "plot", "score", "distill", "reproduce"),
    "Rows that prove themselves": ("verify", "merge", "submit"),
    "Look up": ("advise", "methods", "explain", "pairs", "networks", "recipes", "data"),
    "Single networks and runs": ("train", "run", "work", "evaluate", "export", "teachers"),
    "Your own method": ("check",),
}
"""the verbs below each heading of `kdzoo --help`; the verb NAME is the function, or the group of verbs, NAME in kdzoo/cli/NAME.py"""


class Verbs(MutableMapping[str, Any]):
    """The commands by name, as a group of typer's keeps them."""

    def __init__(self) -> None:
        self._panels = {name: panel for panel, names in PANELS.items() for name in names}
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = load_verb(name, self._panels[name])
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self._panels

    def __iter__(self) -> Iterator[str]:
        return iter(self._panels)

    def __len__(self) -> int:
        return len(self._panels)

    def __setitem__(self, name: str, command: Any) -> None:
        raise TypeError(f"{name}: verbs are declared in PANELS")

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name}: verbs are declared in PANELS")


def load_verb(name: str, panel: str) -> Any:
    """Import a verb and make the command, or the group of commands, that typer runs."""
    app = getattr(import_module(f"kdzoo.cli.{name}"), name)
    if not isinstance(app, typer.Typer):
        function, app = app, typer.Typer(add_completion=False)
        app.command(name, cls=Command, epilog=EXIT_CODES)(function)
    for verb in (app.registered_callback, *app.registered_commands):
        if verb is not None and verb.callback is not None:
            verb.help = reflow(verb.callback.__doc__ or "")
    command: Any = get_command(app)
    command.name, command.rich_help_panel = name, panel
    return command


def reflow(text: str) -> str:
    """A docstring whose lines are as long as the terminal is wide, but for blocks set off with a backspace."""
    return "\n\n".join(part if part.startswith("\b") else part.replace("\n", " ") for part in inspect.cleandoc(text).split("\n\n"))
