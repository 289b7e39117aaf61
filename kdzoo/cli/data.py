"""`kdzoo data`: the data sets, what one holds, and downloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdzoo.cli import complete
from kdzoo.cli.declare import EXIT_CODES, Command, Group, argument
from kdzoo.cli.loading import load_plugin_files
from kdzoo.cli.options import AsJson, DataRoot, FormatOption, Plugins, chosen_format
from kdzoo.cli.output import print_json, print_message, print_text
from kdzoo.cli.table import Column, Format, field, print_rows
from kdzoo.errors import InputError
from kdzoo.text import first_line, number_of

if TYPE_CHECKING:
    from kdzoo.data.known import DataSource


class _DataGroup(Group):
    """`kdzoo data NAME` is `kdzoo data show NAME`; `kdzoo data` lists."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        known = not args or args[0].startswith("-") or self.get_command(ctx, args[0]) is not None
        return super().resolve_command(ctx, args if known else ["show", *args])

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        from typer._click.shell_completion import CompletionItem

        names = [CompletionItem(name) for name in complete.data(Path(), incomplete) if name.startswith(incomplete)]
        return [*super().shell_complete(ctx, incomplete), *names]


data = typer.Typer(cls=_DataGroup, rich_markup_mode="rich", invoke_without_command=True, epilog=EXIT_CODES, add_completion=False)


@data.callback()
def data_sets(ctx: typer.Context) -> None:
    """List the data sets, show one, or download one.

    \b
    Examples:
      kdzoo data                    the data sets there are, and which are on this machine
      kdzoo data digits             what one of them holds
      kdzoo data prepare cifar100   download and check it
    """
    if ctx.invoked_subcommand is None:
        data_list()


@data.command("list", cls=Command, epilog=EXIT_CODES)
def data_list(
    data_root: DataRoot = None, plugin: Plugins = None, output_format: FormatOption = Format.table, as_json: AsJson = False
) -> int:
    """List the data sets: images, classes, size, and where each is on this machine or how to get it.

    \b
    Example:
      kdzoo data list --data-root ~/data
    """
    from kdzoo.data.known import DATA

    load_plugin_files(plugin)
    root = Path(data_root) if data_root else None
    print_rows([_data_row(name, known, root) for name, known in DATA.items()], chosen_format(output_format, as_json), columns=DATA_COLUMNS)
    return 0


DATA_COLUMNS = (
    field("data"),
    Column("images", lambda row: "" if row["train"] is None else f"{row['train']:,}+{row['test']:,}", number=True),
    field("classes", number=True),
    Column("size", lambda row: _size_text(row["shape"])),
    Column("on this machine", lambda row: _availability(row)),
    field("description", prose=True),
    field("path"),
)


def _data_row(name: str, known: DataSource, root: Path | None) -> dict[str, Any]:
    from kdzoo.data.known import HALVED, location_of, path_of

    is_own = path_of(name) is not None
    path = None if is_own else location_of(name, root)
    return {
        "data": name,
        "train": known.train,
        "test": known.test,
        "classes": known.classes,
        "shape": known.shape and list(known.shape),
        "description": known.description,
        "here": path is not None,
        "path": path if known.files and path else None,
        "get": (known.get or f"kdzoo data prepare {HALVED.get(name, name)}") if path is None and not is_own else None,
    }


def _availability(row: Mapping[str, Any]) -> str:
    """Whether a data set is on this machine, or the command that fetches it, or the one that tells how to."""
    if row["get"]:
        return str(row["get"]) if str(row["get"]).startswith("kdzoo ") else f"kdzoo data {row['data']}"
    return "yes" if row["path"] else "built in" if row["here"] else "your files"


def _size_text(shape: Sequence[int] | None) -> str:
    """`32x32 colour`."""
    return f"{shape[2]}x{shape[1]} {'grey' if shape[0] == 1 else 'colour'}" if shape else ""


@data.command("show", cls=Command, epilog=EXIT_CODES)
def data_show(
    name: Annotated[
        str,
        argument(
            "A data set's name, folder:PATH, text:PATH, or images:PATH for images without labels.", metavar="NAME", names_of=complete.data
        ),
    ],
    data_root: DataRoot = None,
    plugin: Plugins = None,
    output_format: FormatOption = Format.table,
    as_json: AsJson = False,
) -> int:
    """Read a data set; print its source, its splits, its classes and which files were ignored. `show` may be left out.

    \b
    Examples:
      kdzoo data show digits
      kdzoo data folder:photos
    """
    from kdzoo.data.report import data_lines, data_record
    from kdzoo.data.sources import load
    from kdzoo.data.split import split
    from kdzoo.runs.spec import DataSpec

    load_plugin_files(plugin)
    dataset = load(name, root=Path(data_root) if data_root else None, allow_download=False)
    spec = DataSpec(
        name=dataset.name, fingerprint=dataset.fingerprint, classes=len(dataset.classes), val_fraction=0.1 if dataset.val else 0.0
    )
    record = data_record(dataset, split(dataset, spec))
    parts = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    targets = {part: subset.targets.tolist() for part, subset in parts.items() if subset is not None}
    counts = [{"class": label, **{part: ys.count(n) for part, ys in targets.items()}} for n, label in enumerate(dataset.classes)]
    if chosen_format(output_format, as_json) is Format.json:
        print_json({**record, "counts": counts})
        return 0
    for line in data_lines(record):
        print_message(line.removeprefix("data: "))
    if dataset.columns:
        sizes = ", ".join(f"{one.name} ({number_of(len(one.classes), 'class', 'classes')})" for one in dataset.columns)
        print_message(f"columns of targets: {sizes}; --columns names those to learn")
    print_rows(counts, output_format)
    return 0


@data.command("prepare", cls=Command, epilog=EXIT_CODES)
def data_prepare(
    name: Annotated[str, argument("mnist, cifar10, cifar100 or fsdd.", metavar="NAME", names_of=complete.downloads)],
    data_root: DataRoot = None,
) -> int:
    """Download a data set, images through torchvision, and check it. If it is there already, only check it.

    \b
    Example:
      kdzoo data prepare cifar100 --data-root ~/data
    """
    from kdzoo.data.archives import prepare
    from kdzoo.data.known import data_root as chosen_root
    from kdzoo.data.sources import load

    root = Path(data_root) if data_root else None
    try:
        prepare(name, root)
    except (OSError, RuntimeError) as error:
        reason = first_line(error)
        raise InputError(
            f"data: {name} could not be downloaded ({type(error).__name__}: {reason}); copy its files below {chosen_root(root)} by hand"
        ) from error
    dataset = load(name, root=root)
    line = (
        f"{name}: {len(dataset.train.targets)} + {len(dataset.test.targets)} {dataset.samples_in_words}, "
        f"{len(dataset.classes)} classes, in {chosen_root(root)}"
    )
    print_text(line)
    return 0
