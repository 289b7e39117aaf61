"""`kdzoo distill`: the short way for a person with a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from kdzoo.cli import complete
from kdzoo.cli.bench_options import takes_options
from kdzoo.cli.declare import TRAINING, argument, option
from kdzoo.cli.export import ExportFormat, Int8Option
from kdzoo.cli.output import console, print_text
from kdzoo.cli.training import training_display
from kdzoo.errors import InputError, collect_problems
from kdzoo.runs.options import ONE_RUN, PAIR, RESULTS
from kdzoo.suite.plan.config import DISTILL_METHOD, DISTILL_RECIPE, DISTILL_STUDENT, UNLABELLED_METHOD

if TYPE_CHECKING:
    from kdzoo.suite.distill.wish import Wish


@takes_options("licence", *ONE_RUN)
def distill(
    folder: Annotated[
        Path, argument("Images: train/, test/ (and val/) with a sub-folder per class, or the sub-folders alone.", metavar="FOLDER")
    ],
    teacher: Annotated[
        str,
        option(
            text="A network's name (its published weights), a file of your own weights, or NAME:FILE; then @SIZE, @norm=imagenet.",
            panel=PAIR,
            metavar="NAME",
            names_of=complete.networks,
        ),
    ],
    student: Annotated[
        str,
        option(
            text="The small network: NAME (from its published weights, where there are some), NAME:random (from scratch) or NAME:FILE.",
            default=DISTILL_STUDENT,
            panel=PAIR,
            metavar="NAME",
            names_of=complete.networks,
        ),
    ] = DISTILL_STUDENT,
    out: Annotated[
        Path,
        option(
            text="Folder for the student's weights, how to use them, and the verdict.", default="small", panel=RESULTS, metavar="FOLDER"
        ),
    ] = Path("small"),
    output_format: Annotated[
        ExportFormat,
        option(
            "--format",
            text="Write the student for onnxruntime (onnx) or a model hub (hf) too, into a folder of that name in --out.",
            default="timm",
            panel=RESULTS,
            metavar="FORMAT",
            names_of=complete.of(*ExportFormat),
        ),
    ] = ExportFormat.timm,
    int8: Int8Option = None,
    method: Annotated[
        str | None,
        option(
            text="The distillation method, or a sum of methods.",
            default=f"{DISTILL_METHOD}; without labels {UNLABELLED_METHOD}",
            panel=TRAINING,
            metavar="NAME",
            names_of=complete.methods,
        ),
    ] = None,
    recipe: Annotated[
        str,
        option(text="How both networks are trained.", default=DISTILL_RECIPE, panel=TRAINING, metavar="NAME", names_of=complete.recipes),
    ] = DISTILL_RECIPE,
    epochs: Annotated[
        int | None,
        option(
            text="Number of epochs of both networks.",
            default="the recipe's, with at least its number of steps",
            panel=TRAINING,
            metavar="N",
        ),
    ] = None,
    time: Annotated[
        str | None,
        option(
            text="How long it may take, such as 2h or 45m: as many epochs as are expected to fit; if it ends early, the best so far.",
            default="as long as the epochs take",
            panel=TRAINING,
            metavar="TIME",
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        option(
            text="Side of the images that the networks see, in pixels.",
            default="the smallest at which the teacher sees enough",
            panel=TRAINING,
            metavar="N",
        ),
    ] = None,
    seed: Annotated[int, option(text="Seed of initial weights, batches and crops.", default="0", panel=TRAINING, metavar="N")] = 0,
    skip_unreadable: Annotated[
        bool,
        option(
            "--skip-unreadable",
            text="Skip files that cannot be read; they are counted and listed. Otherwise they are an error.",
            default="off",
            panel=PAIR,
        ),
    ] = False,
    unlabelled: Annotated[
        bool,
        option(
            "--unlabelled",
            text="The images have no labels, whatever sub-folders they are in: the teacher's embeddings are distilled into a backbone.",
            default="off",
            panel=PAIR,
        ),
    ] = False,
    **options: Any,
) -> int:
    """Distil a large network into a small one on your own images: one method and one recipe, no grid.

    A name alone means published (pretrained) weights where there are any, of the student too; --student NAME:random starts from
    random ones. A teacher made for other classes is given a
    classifier for yours first. At the end comes the verdict: accuracy, parameters, multiply-accumulates and latency on this
    machine of the distilled student, the same student trained alone, and the teacher. The student's weights are a
    safetensors file that plain timm loads; the README beside it has the code. Run the same command to resume.

    With --unlabelled the teacher is any network without its classifier (DINOv2, CLIP, a ResNet), the student a backbone that
    timm loads with num_classes=0, and the end says how alike the two see images that were held out.

    \b
    Examples:
      kdzoo distill photos/ --teacher my_resnet50.pth --out small/
      kdzoo distill photos/ --unlabelled --teacher vit_small_patch14_dinov2 --out small/
    """
    from kdzoo.data.known import FOLDER, UNLABELLED
    from kdzoo.suite.distill.wish import Wish, seconds_in

    licence = options.pop("licence")
    problems: list[str] = []
    seconds = None
    with collect_problems(problems):
        seconds = None if time is None else seconds_in(time)
    wish = Wish(
        data=f"{UNLABELLED if unlabelled else FOLDER}{folder}",
        teacher=teacher,
        results=out,
        student=student,
        method=method or (UNLABELLED_METHOD if unlabelled else DISTILL_METHOD),
        recipe=recipe,
        epochs=epochs,
        seconds=seconds,
        image_size=image_size,
        seed=seed,
        execution={key: value for key, value in options.items() if value is not None},
        skip_unreadable=skip_unreadable,
        format=output_format.value,
        int8=None if int8 is None else int8.value,
        licence=licence,
    )
    _refuse_early(wish, problems)
    if unlabelled:
        return _print_likeness(wish)
    from kdzoo.suite.distill.distill import PAGE, distill_folder
    from kdzoo.suite.distill.verdict import conclusion, table_of_width

    with training_display() as display:
        verdict = distill_folder(wish, display.handle)
    lines = table_of_width(verdict, console().width, f"{out / 'README.md'}")
    places = f"weights, classes and how to use them: {out}/; what it confuses: {out}/{PAGE}"
    print_text("\n".join(["", *lines, "", conclusion(verdict), "", places]))
    return 0


def _refuse_early(wish: Wish, problems: list[str]) -> None:
    """Raise InputError for these problems and for images and weights that are missing, before anything is loaded.

    Beside them stands all else that is wrong with the options.
    """
    from kdzoo.suite.plan.first_look import missing_files
    from kdzoo.suite.plan.layers import bench_config

    problems += missing_files(wish.data, (wish.teacher, wish.student))
    if problems:
        with collect_problems(problems):
            bench_config(wish.options(wish.teacher, wish.image_size), None)
        raise InputError(*problems)


def _print_likeness(wish: Wish) -> int:
    from kdzoo.suite.distill.unlabelled import distill_unlabelled

    with training_display() as display:
        likeness = distill_unlabelled(wish, display.handle)
    print_text(str(likeness))
    print_text(f"\nweights and how to use them: {wish.results}/")
    return 0
