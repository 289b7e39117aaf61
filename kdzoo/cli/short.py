"""`kdzoo distill`: the short way for a person with a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdzoo.cli.output import console
from kdzoo.suite.display import open_display


def distill(
    folder: Annotated[Path, typer.Argument(help="Images: train/, test/ (and val/) with a sub-folder a class, or the sub-folders alone.")],
    teacher: Annotated[
        str, typer.Option(help="A network's name, NAME:pretrained, a file of weights, or NAME:FILE; then @SIZE, @norm=imagenet.")
    ],
    student: Annotated[str, typer.Option(help="The small network.")] = "mobilenetv3_small_100",
    out: Annotated[Path, typer.Option(help="Where the student's weights and the verdict go.")] = Path("small"),
    method: Annotated[str, typer.Option(help="How it is taught; plain KD serves any two networks.")] = "hinton",
    recipe: Annotated[str, typer.Option(help="How both networks are trained.")] = "finetune224",
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    image_size: Annotated[int | None, typer.Option(help="The side of what the networks see, instead of the recipe's.")] = None,
    seed: Annotated[int, typer.Option(help="Of initialisation, batches and crops.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int | None, typer.Option(help=r"CPU threads of each process. \[default: OMP_NUM_THREADS, else all cores]")] = None,
) -> int:
    """Distil a large network into a small one on your own images: one good method and recipe, no grid.

    A teacher made for other classes is fine-tuned on yours first. Ends with the verdict: the distilled student, the
    student alone and the teacher, with accuracy, parameters, multiply-accumulates and latency on this machine. The
    student's weights are safetensors that plain timm loads.

    \b
    Example:
      kdzoo distill photos/ --teacher my_resnet50.pth --out small/
    """
    from kdzoo.shortway import distill_folder

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
            device=device,
            threads=threads,
            handle=display.handle,
        )
    console().print(f"\n{verdict}\n\nweights, classes and how to use them: {out}/", markup=False, soft_wrap=True)
    return 0
