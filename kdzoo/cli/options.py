"""Options that several commands share, and how every option is declared: with its default, and its names for the shell."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from kdzoo.cli import complete
from kdzoo.cli.output import Format
from kdzoo.runs.options import PAIR, RESULTS, RUNNING, option_of
from kdzoo.suite.plan.config import BenchConfig

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
        help=_told(text, default),
        show_default=False,
        rich_help_panel=panel,
        metavar=metavar,
        autocompletion=names_of and complete.adapted(names_of),
    )


def argument(text: str, *, metavar: str, default: str | None = None, names_of: complete.Names | None = None) -> Any:
    """A word without an option before it; None as its default: it is required."""
    return typer.Argument(
        help=_told(text, default), show_default=False, autocompletion=names_of and complete.adapted(names_of), metavar=metavar
    )


def in_words(parameters: list[Any]) -> list[Any]:
    """The parameters of a command, without the types such as `<str>` and `<bool>` that typer's help shows beside their names."""
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: None
        elif parameter.metavar is None:
            parameter.metavar = ""
    return parameters


class Command(TyperCommand):
    """A command whose help names no types."""

    def get_params(self, ctx: Any) -> list[Any]:
        return in_words(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


class Group(TyperGroup):
    """A group of commands whose help names no types."""

    def get_params(self, ctx: Any) -> list[Any]:
        return in_words(super().get_params(ctx))


def _told(text: str, default: str | None) -> str:
    return escape(text) if default is None else f"{escape(text)} [dim]{escape(f'[default: {default}]')}[/dim]"


def declared(field: str) -> str:
    """The default of a bench's key, as one types it."""
    value = BenchConfig.model_fields[field].default
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


F = TypeVar("F", bound=Callable[..., int])


def takes_options(*names: str, before: str | None = None, **defaults: str) -> Callable[[F], F]:
    """Give a command the options of execution of these names, in the place of its `**execution`.

    before: the parameter of the command that they stand before in its help; None for the end. defaults: by name, what
    the command takes for an option that is not given, in words, where that is not what a bench takes.
    """

    def decorated(command: F) -> F:
        hints = get_type_hints(command, include_extras=True)
        parameters = inspect.signature(command).parameters.values()
        own = [one.replace(annotation=hints[one.name]) for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD]
        place = [one.name for one in own].index(before) if before else len(own)
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        added = [inspect.Parameter(name, kind, default=None, annotation=_execution_option(name, defaults.get(name))) for name in names]
        command.__signature__ = inspect.Signature([*own[:place], *added, *own[place:]])  # type: ignore[attr-defined]
        return command

    return decorated


def _execution_option(name: str, default: str | None) -> Any:
    """The annotation with which typer offers a field of ExecutionSpec; `default` where the field's own words are not it."""
    offered = option_of(name)
    dashed = f"--{name.replace('_', '-')}"
    names_of = complete.kept if name == "keep" else complete.of(*offered.choices) if offered.choices else None
    return Annotated[
        offered.typed | None,
        option(
            *(offered.flags or (dashed,)),
            text=offered.text,
            default=default or offered.default or declared(name),
            panel=offered.panel,
            metavar=offered.metavar,
            names_of=names_of,
        ),
    ]


Config = Annotated[
    Path | None,
    option(
        "--config",
        "-c",
        text="A YAML file with these options as keys, and a recipe's keys below recipe. The command line wins.",
        default="none",
        metavar="FILE",
    ),
]
Set = Annotated[
    list[str] | None,
    option(
        "--set",
        metavar="KEY=VALUE",
        text="One more key, such as recipe.batch_size=128 or recipe.augment.cutout=8 (repeatable).",
        default="none",
        panel=TRAINING,
        names_of=complete.recipe_keys,
    ),
]
Data = Annotated[
    str | None,
    option(
        text="A data set's name, or folder:PATH; see `kdzoo data`.",
        default=declared("data"),
        panel=PAIR,
        metavar="NAME",
        names_of=complete.data,
    ),
]
DataRoot = Annotated[
    str | None,
    option(
        text="The folder of the data sets.",
        default="KDZOO_DATA, else data/ in the cache folder, KDZOO_CACHE",
        panel=PAIR,
        metavar="FOLDER",
    ),
]
SkipUnreadable = Annotated[
    bool | None,
    option(
        "--skip-unreadable",
        text="Skip files of a folder that cannot be read; they are counted and listed. Otherwise they are an error.",
        default="off",
        panel=PAIR,
    ),
]
Limit = Annotated[int | None, option(text="Number of training images to use.", default="all", panel=PAIR, metavar="N")]
LabelFraction = Annotated[
    float | None,
    option(
        text="Share of the student's training images that keep their labels; the teacher alone teaches the rest.",
        default=declared("label_fraction"),
        panel=PAIR,
        metavar="SHARE",
    ),
]
TransferData = Annotated[
    str | None,
    option(
        text="Images without labels that the student is taught on besides: folder:PATH, or a data set's name for its training images.",
        default="none",
        panel=PAIR,
        metavar="NAME",
        names_of=complete.data,
    ),
]
TransferOnly = Annotated[
    bool | None,
    option(
        "--transfer-only",
        text="Teach the student on --transfer-data alone, without the training images and their labels.",
        default=declared("transfer_only"),
        panel=PAIR,
    ),
]
TransferClasses = Annotated[
    str | None,
    option(
        text="Classes whose images the student is taught on: 7,8 for these, -3 for all but 3. The teacher learns all classes.",
        default="all",
        panel=PAIR,
        metavar="CLASS,...",
    ),
]
ValFraction = Annotated[
    float | None,
    option(
        text="Share of the training images held out for validation; 0 for reproductions.",
        default="the recipe's",
        panel=PAIR,
        metavar="SHARE",
    ),
]
SplitSeed = Annotated[
    int | None,
    option(
        text="Seed of the split, which teacher and students share.",
        default=declared("split_seed"),
        panel=PAIR,
        metavar="N",
    ),
]
SmallStem = Annotated[
    bool,
    option("--small-stem", text="Give timm networks made for 224 pixels a stem for small images.", default="off", panel=PAIR),
]
RecipeName = Annotated[
    str | None,
    option(
        text="A recipe's name, or a YAML file; see `kdzoo recipes`.",
        default="the one that goes with the data",
        panel=TRAINING,
        metavar="NAME",
        names_of=complete.recipes,
    ),
]
Epochs = Annotated[int | None, option(text="Number of epochs.", default="the recipe's", panel=TRAINING, metavar="N")]
Rate = Annotated[float | None, option("--lr", text="Learning rate.", default="the recipe's", panel=TRAINING, metavar="RATE")]
Plugins = Annotated[
    list[str] | None,
    option(
        "--plugin",
        text="A Python file that registers methods, networks, data sets, pairs or recipes (repeatable).",
        default="none",
        panel=OWN,
        metavar="FILE",
    ),
]
Wandb = Annotated[
    str | None,
    option(
        metavar="MODE",
        text="Log to Weights & Biases: online, offline or disabled.",
        default="WANDB_MODE, else disabled",
        panel=RESULTS,
        names_of=complete.of("online", "offline", "disabled"),
    ),
]
Results = Annotated[str | None, option(text="The folder of all benches.", default=declared("results"), panel=RESULTS, metavar="FOLDER")]
ResultsFolder = Annotated[Path, option(text="The folder of all benches.", default=declared("results"), metavar="FOLDER")]
RetryFailed = Annotated[bool, option("--retry-failed", text="Train failed runs again.", default="off", panel=RUNNING)]

Kind = Annotated[
    Format,
    option(
        "--format",
        text=f"{', '.join(Format)}.",
        default=Format.table.value,
        metavar="FORMAT",
        names_of=complete.of(*Format),
    ),
]
AsJson = Annotated[bool, option("--json", text="The same as --format json, for scripts.", default="off")]
JsonOnly = Annotated[bool, option("--json", text="Print JSON, for scripts.", default="off")]


def chosen(how: Format, as_json: bool) -> Format:
    """The format that --format and --json ask for."""
    return Format.json if as_json else how
