"""Options that several commands share, besides the keys of a bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from kdzoo.cli import complete
from kdzoo.cli.bench_options import declared_default, option_for
from kdzoo.cli.declare import argument, option
from kdzoo.cli.table import Format
from kdzoo.runs.options import PAIR, RUNNING

DataRoot = Annotated[str | None, option_for("data_root")]
MovedData = Annotated[
    str | None,
    option("--data", text="Where the run's images are now, if they have moved.", default="where they were", metavar="folder:PATH"),
]
MovedTransferData = Annotated[
    str | None,
    option(
        "--transfer-data",
        text="Where the unlabelled images that it is taught on are now, if they have moved.",
        default="where they were",
        metavar="folder:PATH",
    ),
]
Plugins = Annotated[list[str] | None, option_for("plugin")]
Config = Annotated[
    Path | None,
    option(
        "--config",
        "-c",
        text="A YAML file with these options as keys; a recipe's keys go under recipe. The command line wins.",
        default="none",
        metavar="FILE",
    ),
]
SmallStem = Annotated[
    bool,
    option("--small-stem", text="Give timm networks made for 224 pixels a stem for small images.", default="off", panel=PAIR),
]
OneBench = Annotated[
    str | None,
    argument(
        "A bench's name below --results, or its folder.",
        metavar="BENCH",
        default="the only one below --results",
        names_of=complete.bench_names,
    ),
]
ResultsFolder = Annotated[Path, option(text="The folder of all benches.", default=declared_default("results"), metavar="FOLDER")]
RetryFailed = Annotated[bool, option("--retry-failed", text="Train failed runs again.", default="off", panel=RUNNING)]

FormatOption = Annotated[
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


def chosen_format(output_format: Format, as_json: bool) -> Format:
    """The format that --format and --json ask for."""
    return Format.json if as_json else output_format
