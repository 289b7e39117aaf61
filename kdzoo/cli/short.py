"""`kdzoo distill`: the short way for a person with a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from kdzoo.cli import complete
from kdzoo.cli.options import PAIR, RESULTS, RUNNING, TRAINING, argument, option
from kdzoo.cli.output import console
from kdzoo.suite.display import open_display


def distill(
    folder: Annotated[Path, argument("Images: train/, test/ (and val/) with a sub-folder a class, or the sub-folders alone.")],
    teacher: Annotated[
        str,
        option(
            text="A network's name, NAME:pretrained, a file of weights, or NAME:FILE; then @SIZE, @norm=imagenet.",
            panel=PAIR,
            metavar="NAME",
            names_of=complete.networks,
        ),
    ],
    student: Annotated[
        str, option(text="The small network.", default="mobilenetv3_small_100", panel=PAIR, metavar="NAME", names_of=complete.networks)
    ] = "mobilenetv3_small_100",
    out: Annotated[
        Path, option(text="Folder for the student's weights and the verdict.", default="small", panel=RESULTS, metavar="FOLDER")
    ] = Path("small"),
    method: Annotated[
        str,
        option(
            text="The distillation method; plain KD works with any two networks.",
            default="hinton",
            panel=TRAINING,
            metavar="NAME",
            names_of=complete.methods,
        ),
    ] = "hinton",
    recipe: Annotated[
        str,
        option(text="How both networks are trained.", default="finetune224", panel=TRAINING, metavar="NAME", names_of=complete.recipes),
    ] = "finetune224",
    epochs: Annotated[int | None, option(text="Number of epochs.", default="the recipe's", panel=TRAINING, metavar="N")] = None,
    image_size: Annotated[
        int | None, option(text="Side of the images that the networks see, in pixels.", default="the recipe's", panel=TRAINING, metavar="N")
    ] = None,
    seed: Annotated[int, option(text="Seed of initial weights, batches and crops.", default="0", panel=TRAINING, metavar="N")] = 0,
    device: Annotated[
        str,
        option(
            text="auto, cpu, cuda or cuda:NUMBER.",
            default="auto",
            panel=RUNNING,
            metavar="NAME",
            names_of=complete.of("auto", "cpu", "cuda"),
        ),
    ] = "auto",
    threads: Annotated[
        int | None,
        option(text="CPU threads of each process.", default="OMP_NUM_THREADS, else all cores", panel=RUNNING, metavar="N"),
    ] = None,
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
