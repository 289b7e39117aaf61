"""`kdzoo distill`: the short way for a person with a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdzoo.cli.output import console
from kdzoo.suite.display import open_display

METHOD, RECIPE, STUDENT = "hinton+pefd", "distill", "mobilenetv3_small_100"
"""the defaults of `kdzoo.shortway`, which this module imports late: it imports torch"""


def distill(
    folder: Annotated[Path, typer.Argument(help="Images: one sub-folder a class, or train/ and test/ (and val/) with such sub-folders.")],
    teacher: Annotated[
        str, typer.Option(help="A network's name, NAME:pretrained, a file of weights, or NAME:FILE; then @SIZE, @norm=imagenet.")
    ],
    student: Annotated[str, typer.Option(help="The small network: a name, NAME:random, NAME:pretrained or NAME:FILE.")] = STUDENT,
    out: Annotated[Path, typer.Option(help="Folder for the student's weights, how to use them, and the verdict.")] = Path("small"),
    method: Annotated[str, typer.Option(help="Distillation method, or a sum of methods; see `kdzoo methods`.")] = METHOD,
    recipe: Annotated[str, typer.Option(help="Training recipe of both networks; see `kdzoo recipes`.")] = RECIPE,
    epochs: Annotated[
        int | None, typer.Option(help=r"Epochs of both networks. \[default: the recipe's, with at least its number of steps]")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help=r"Side in pixels of what the networks see. \[default: the smallest at which the teacher sees enough]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of initialisation, order and views.")] = 0,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out files that cannot be read, counted and listed, instead of refusing them.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:NUMBER.")] = "auto",
    threads: Annotated[int | None, typer.Option(help=r"CPU threads of each process. \[default: OMP_NUM_THREADS, else all cores]")] = None,
) -> int:
    """Distil a large network into a small one on your own images: one good method and recipe, no grid.

    A name alone means published (pretrained) weights where there are any. A teacher made for other classes gets a
    classifier for yours first. Ends with the verdict: the distilled student, the same student trained alone and the teacher, with accuracy,
    parameters, multiply-accumulates and latency on this machine. The student's weights are safetensors that plain timm loads;
    the README beside them has the code. Run the same command to resume.

    \b
    Example:
      kdzoo distill photos/ --teacher my_resnet50.pth --out small/
    """
    from kdzoo.shortway import distill_folder
    from kdzoo.verdict import conclusion, table

    with open_display(console()) as display:
        verdict = distill_folder(
            folder,
            teacher=teacher,
            student=student,
            out=out,
            method=method,
            recipe=recipe,
            epochs=epochs,
            image_size=image_size,
            seed=seed,
            skip_unreadable=skip_unreadable,
            device=device,
            threads=threads,
            handle=display.handle,
        )
    words = "\n".join(["", *table(verdict), "", conclusion(verdict), "", f"weights, classes and how to use them: {out}/"])
    console().print(words, markup=False, soft_wrap=True)
    return 0
