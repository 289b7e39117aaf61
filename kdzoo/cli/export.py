"""`kdzoo export`: a trained student in a form that runs elsewhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from kdzoo.cli import complete
from kdzoo.cli.bench_options import read_options, takes_options
from kdzoo.cli.declare import argument, option
from kdzoo.cli.lookup import run_folder
from kdzoo.cli.options import DataRoot, MovedData, MovedTransferData, Plugins, ResultsFolder
from kdzoo.cli.output import print_text
from kdzoo.runs.options import RESULTS
from kdzoo.suite.plan.layers import bench_config


class ExportFormat(StrEnum):
    """The forms in which a student is exported."""

    timm = "timm"
    onnx = "onnx"
    hf = "hf"


class Int8(StrEnum):
    """How a graph is quantised to 8 bits."""

    static = "static"
    qat = "qat"


Int8Option = Annotated[
    Int8 | None,
    option(
        "--int8",
        text="Quantise the ONNX graph to 8 bits too, calibrated on training images and measured on test images: static, or qat, "
        "which fine-tunes the student for 8 bits under its teacher first.",
        default="none",
        panel=RESULTS,
        metavar="HOW",
        names_of=complete.of(*Int8),
    ),
]


@takes_options("image_cache", before="plugin")
def export(
    run: Annotated[
        str,
        argument("A run's folder, its run.json or its id, or a folder that `kdzoo distill` left.", metavar="RUN", names_of=complete.runs),
    ],
    output_format: Annotated[
        ExportFormat,
        option("--format", text=f"{', '.join(ExportFormat)}.", metavar="FORMAT", names_of=complete.of(*ExportFormat)),
    ],
    out: Annotated[Path, option("--out", "-o", text="The folder to write, which must not exist yet or be empty.", metavar="FOLDER")],
    pixels: Annotated[
        bool,
        option("--pixels", text="The ONNX graph takes pixels from 0 to 255 and normalises them itself.", default="off"),
    ] = False,
    int8: Int8Option = None,
    data: MovedData = None,
    data_root: DataRoot = None,
    transfer_data: MovedTransferData = None,
    results: ResultsFolder = Path("results"),
    plugin: Plugins = None,
    **execution: Any,
) -> int:
    """Export a trained student, with the preprocessing that it was trained with and a README that uses both.

    timm: weights that timm loads. onnx: a graph for onnxruntime, compared with the network on test images; needs
    neither torch nor kdzoo. hf: a model repository with a model card. Each folder holds the code that read the images in training.

    \b
    Examples:
      kdzoo export results/digits/runs/hinton-0123456789ab --format onnx -o exported/
      kdzoo export small/ --format timm -o exported/
    """
    from kdzoo.contract.plugins import load_plugins
    from kdzoo.suite.export.export import delivered_run
    from kdzoo.suite.export.export import export as export_run
    from kdzoo.training.located import LocatedRun, moved_to

    config = bench_config(read_options({**execution, "plugin": plugin}), None)
    load_plugins(config.plugin)
    folder = delivered_run(Path(run)) or run_folder(run, results)
    exported = export_run(
        LocatedRun.read(folder, moved_to(data, data_root, transfer_data)),
        output_format.value,
        out,
        pixels=pixels,
        int8=None if int8 is None else int8.value,
        image_cache=config.image_cache,
    )
    for note in exported.notes:
        print_text(f"{output_format.value}: {note}")
    print_text(f"{exported.run_id} as {output_format.value}, with a README that uses it: {exported.folder}/")
    return 0
