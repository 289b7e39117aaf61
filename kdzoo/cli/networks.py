"""`kdzoo networks`: kdzoo's own networks, and timm's by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from kdzoo.cli import complete
from kdzoo.cli.cells import compact
from kdzoo.cli.complete import timm_names
from kdzoo.cli.declare import argument
from kdzoo.cli.loading import load_plugin_files
from kdzoo.cli.options import AsJson, FormatOption, Plugins, chosen_format
from kdzoo.cli.output import print_text
from kdzoo.cli.table import Column, Format, field, print_rows
from kdzoo.errors import InputError, did_you_mean
from kdzoo.models.known import own_networks

if TYPE_CHECKING:
    from kdzoo.models.known import Known


def networks(
    like: Annotated[
        str | None,
        argument(
            "A part of the name, or a pattern such as 'resnet*', to search timm's too.",
            default="kdzoo's own",
            names_of=complete.networks,
            metavar="NAME",
        ),
    ] = None,
    plugin: Plugins = None,
    output_format: FormatOption = Format.table,
    as_json: AsJson = False,
) -> int:
    """List kdzoo's own networks with their sizes, and those of your plugins; with a part of a name, those of timm that have it too.

    Parameters, and multiply-accumulates (MACs) of one image, are those of a network with as many classes as are listed.
    mlp_WIDTH_WIDTH is a fully connected network of any widths, one for each hidden layer.

    \b
    Examples:
      kdzoo networks
      kdzoo networks 'mobilenetv3*'
    """
    load_plugin_files(plugin)
    own = own_networks()
    names = sorted({*own, *_registered(plugin)})
    if like is not None:
        names = [name for name in sorted({*names, *timm_names()}) if _matches(name, like)]
        if not names:
            raise InputError(f"networks: no name has {like!r} in it{did_you_mean(like, [*own, *timm_names()])}")
    rows = [_network_row(name, own.get(name)) for name in names]
    sized = any(row["parameters"] is not None for row in rows)
    print_rows(rows, chosen_format(output_format, as_json), names=NETWORK_KEYS, columns=NETWORK_COLUMNS if sized else NETWORK_COLUMNS[:1])
    if like is None and chosen_format(output_format, as_json) is Format.table:
        print_text(f"\nAnd {len(timm_names()):,} of timm: kdzoo networks NAME, with a part of the name.")
    return 0


NETWORK_KEYS = ("network", "parameters", "macs", "input", "classes")


NETWORK_COLUMNS = (
    field("network"),
    Column("parameters", lambda row: compact(row["parameters"]), number=True),
    Column("MACs", lambda row: compact(row["macs"]), number=True),
    Column("input", lambda row: "x".join(map(str, row["input"] or ()))),
    field("classes", number=True),
)


def _registered(plugin: Sequence[str] | None) -> list[str]:
    """The networks that a user's files have registered."""
    if not plugin:
        return []
    from kdzoo.models.names import list_networks

    return list_networks()


def _network_row(name: str, known: Known | None) -> dict[str, Any]:
    sizes = (known.parameters, known.macs, list(known.input), known.classes) if known else (None,) * 4
    return dict(zip(NETWORK_KEYS, (name, *sizes), strict=True))


def _matches(name: str, like: str) -> bool:
    from fnmatch import fnmatch

    return fnmatch(name, like) if any(sign in like for sign in "*?[") else like in name
