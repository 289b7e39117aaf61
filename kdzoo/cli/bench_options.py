"""The keys of a bench's configuration as options of `kdzoo bench`, and of the commands that take some of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, get_type_hints

from kdzoo.cli import complete
from kdzoo.cli.bench_keys import KEYS
from kdzoo.cli.declare import option
from kdzoo.errors import InputError, collect_problems
from kdzoo.runs.options import ALL, Option, option_of
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.yaml_files import assignments

COMPLETIONS: dict[str, complete.Names] = {
    "methods": complete.methods,
    "pairs": complete.pairs,
    "teacher": complete.teachers,
    "student": complete.networks,
    "data": complete.data,
    "transfer_data": complete.data,
    "recipe": complete.recipes,
    "edition": complete.editions,
    "set": complete.recipe_keys,
    "name": complete.bench_names,
    "keep": complete.kept,
}
"""what the shell completes a key with, where that is not one of its choices"""

BENCH = (*KEYS, *ALL)
"""the names of all options of `kdzoo bench` that are keys of its configuration"""

C = TypeVar("C", bound=Callable[..., int])


def takes_options(*names: str, before: str | None = None, **defaults: str) -> Callable[[C], C]:
    """Give a command the options of these keys, in the place of its `**` parameter.

    before: the parameter of the command that they stand before in its help; None for the end. defaults: by name, what
    the command takes for an option that is not given, in words, where that is not what a bench takes.
    """

    def add_options(command: C) -> C:
        hints = get_type_hints(command, include_extras=True)
        parameters = inspect.signature(command).parameters.values()
        own = [one.replace(annotation=hints[one.name]) for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD]
        place = [one.name for one in own].index(before) if before else len(own)
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        options = [inspect.Parameter(name, kind, default=None, annotation=annotation_for(name, defaults.get(name))) for name in names]
        command.__signature__ = inspect.Signature([*own[:place], *options, *own[place:]])  # type: ignore[attr-defined]
        return command

    return add_options


def annotation_for(name: str, default: str | None) -> Any:
    """The annotation of a command's parameter for a key; default: in words, where the key's own is not it."""
    return Annotated[_declaration(name).typed | None, option_for(name, default)]


def option_for(name: str, default: str | None = None) -> Any:
    """The option for a key, as typer takes it; default: in words, where the key's own is not it."""
    key = _declaration(name)
    return option(
        *(key.flags or (f"--{name.replace('_', '-')}",)),
        text=key.text,
        default=default or key.default or declared_default(name),
        panel=key.panel,
        metavar=key.metavar,
        names_of=COMPLETIONS.get(name) or (complete.of(*key.choices) if key.choices else None),
    )


def _declaration(name: str) -> Option:
    return KEYS.get(name) or option_of(name)


def declared_default(name: str) -> str:
    """The default of a key, as one types it."""
    value = BenchConfig.model_fields[name].default
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


SMALL_STEM = {"student.stem": "small", "teacher.stem": "small"}
"""what --small-stem sets"""


def read_options(options: Mapping[str, Any], *, small_stem: bool = False) -> dict[str, Any]:
    """The options that are present, as keys of a BenchConfig; raises InputError for each --set and --grid without `=`."""
    present = {name: value for name, value in options.items() if value not in (None, (), [])}
    problems: list[str] = []
    changes: dict[str, Any] = SMALL_STEM if small_stem else {}
    with collect_problems(problems):
        changes = {**changes, **assignments(present.pop("set", ()))}
    axes = [text.partition("=") for text in present.pop("grid", ())]
    problems += [f"--grid {text}: expected METHOD.FIELD=VALUE,..." for text, equals, _ in axes if not equals]
    if problems:
        raise InputError(*problems)
    if changes:
        present["set"] = changes
    if axes:
        present["grid"] = {axis: values for axis, _, values in axes}
    return present
