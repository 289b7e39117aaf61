"""How commands, arguments and options are declared: each option with its default in words, and with its names for the shell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from kdzoo.cli import complete

SWEEP = "What is compared"
TRAINING = "How it is trained"
OWN = "Your own methods, networks and data"
LISTING = "What is listed"
"""the headings under which `--help` groups options"""

EXIT_CODES = "Exit codes: 0 success, 1 a run or check failed, 2 bad input, 130 interrupted."


def option(
    *names: str,
    text: str,
    default: str | None = None,
    panel: str | None = None,
    metavar: str = "",
    names_of: complete.Names | None = None,
) -> Any:
    """An option with what it does, its default in words (None: it is required) and what the shell completes it with.

    A flag has no metavar.
    """
    return typer.Option(
        *names,
        help=_help_text(text, default),
        show_default=False,
        rich_help_panel=panel,
        metavar=metavar,
        autocompletion=names_of and complete.completion(names_of),
    )


def argument(text: str, *, metavar: str, default: str | None = None, names_of: complete.Names | None = None) -> Any:
    """A word without an option before it; None as its default: it is required."""
    return typer.Argument(
        help=_help_text(text, default), show_default=False, autocompletion=names_of and complete.completion(names_of), metavar=metavar
    )


def hide_types(parameters: list[Any]) -> list[Any]:
    """The parameters of a command, without the types such as `<str>` and `<bool>` that typer's help shows beside their names."""
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: None
        elif parameter.metavar is None:
            parameter.metavar = ""
    return parameters


class UsageFaults(Exception):
    """What the option parser finds wrong with several options and arguments of one command line, each as it raises it."""

    def __init__(self, faults: Sequence[Exception]) -> None:
        super().__init__(*faults)
        self.faults = faults


class Command(TyperCommand):
    """A command whose help names no types, and whose options are all read before what is wrong with any of them is told."""

    def get_params(self, ctx: Any) -> list[Any]:
        return hide_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if getattr(error, "param", None) is None:  # it is no fault of an option's or argument's value
                raise
            faults = self._faults(ctx, words)
            if len(faults) < 2:
                raise
            raise UsageFaults(faults) from error

    def _faults(self, ctx: Any, words: list[str]) -> list[Exception]:
        """What is wrong with each option and argument of a command line by itself."""
        options, rest, _ = self.make_parser(ctx).parse_args(args=words)
        faults: list[Exception] = []
        for parameter in self.get_params(ctx):
            try:
                parameter.handle_parse_result(ctx, options, rest)
            except Exception as error:
                if getattr(error, "param", None) is None:
                    raise
                faults.append(error)
        return faults

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


class Group(TyperGroup):
    """A group of commands whose help names no types."""

    def get_params(self, ctx: Any) -> list[Any]:
        return hide_types(super().get_params(ctx))


def _help_text(text: str, default: str | None) -> str:
    return escape(text) if default is None else f"{escape(text)} [dim]{escape(f'[default: {default}]')}[/dim]"
