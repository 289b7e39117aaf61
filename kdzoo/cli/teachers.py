"""`kdzoo teachers`: the teachers that are kept, their answers saved to a file, and teachers made of other ones."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from kdzoo.cli import complete
from kdzoo.cli.cells import compact
from kdzoo.cli.declare import EXIT_CODES, Command, Group, argument, option
from kdzoo.cli.lookup import run_folder
from kdzoo.cli.options import AsJson, FormatOption, ResultsFolder, chosen_format
from kdzoo.cli.output import print_text
from kdzoo.cli.table import Column, Format, field, metric_column, print_rows
from kdzoo.cli.teacher_files import join, save_by_names
from kdzoo.errors import InputError
from kdzoo.runs.store import RunFolder, teacher_store
from kdzoo.suite.report.records import Record, read_record
from kdzoo.tasks.classification import CLASSIFICATION
from kdzoo.tasks.task import Metric

COMPARED_ROWS = 64
PARTS: tuple[Literal["val", "test"], ...] = ("val", "test")

teachers = typer.Typer(cls=Group, rich_markup_mode="rich", invoke_without_command=True, epilog=EXIT_CODES, add_completion=False)


@teachers.callback()
def kept(ctx: typer.Context, output_format: FormatOption = Format.table, as_json: AsJson = False) -> None:
    """List the teachers that are kept, save the answers of one to a file, or join several into one.

    Give an id to `kdzoo bench --teacher`. They are kept in the cache folder (KDZOO_CACHE).

    \b
    Examples:
      kdzoo teachers --format csv
      kdzoo teachers save none-0123456789ab -o answers.npz
      kdzoo bench --teacher saved:answers.npz --student resnet20 --data cifar100
    """
    if ctx.invoked_subcommand is not None:
        return
    records = [read_record(teacher_store().run(run_id)) for run_id in teacher_store().ids()]
    if not records and chosen_format(output_format, as_json) is Format.table:
        print_text("no teachers are kept yet; `kdzoo train NETWORK` or a bench trains one")
        return
    headlines = tuple(dict.fromkeys(record.task.headline for record in records)) or (CLASSIFICATION.headline,)
    rows = [teacher_row(record, headlines) for record in records]
    print_rows(rows, chosen_format(output_format, as_json), names=teacher_keys(headlines), columns=teacher_columns(headlines))


teachers.command("join", cls=Command, epilog=EXIT_CODES)(join)
teachers.command("save-by-names", cls=Command, epilog=EXIT_CODES)(save_by_names)


def teacher_keys(headlines: Iterable[Metric]) -> list[str]:
    """The keys of a list of teachers, of tasks with these headlines."""
    values = [f"{part}_{metric.name}" for metric in headlines for part in PARTS]
    return ["id", "network", "data", "recipe", "epochs", "seed", *values, "parameters", "state"]


def teacher_columns(headlines: Sequence[Metric]) -> list[Column]:
    """The columns of a table of teachers, the most important first."""
    val, test = ([metric_column(part, metric) for metric in headlines] for part in PARTS)
    size = Column("parameters", lambda row: compact(row["parameters"]), number=True)
    length = [field("epochs", number=True), field("seed", number=True)]
    return [*map(field, ("id", "network", "data")), *test, *length, *val, field("state"), field("recipe"), size]


def teacher_row(record: Record, headlines: Iterable[Metric]) -> dict[str, Any]:
    """A teacher by its keys; None for the headline of another task than its own."""
    own = record.task.headline
    values = {f"{part}_{one.name}": record.headline(part) if one is own else None for one in headlines for part in PARTS}
    return {
        "id": record.id,
        "network": record.run.student.name,
        "data": record.run.data.name,
        "recipe": record.about.get("recipe"),
        "epochs": record.run.recipe.epochs,
        "seed": record.run.seed,
        **values,
        "parameters": record.result and record.result["student"]["parameters"],
        "state": record.state,
    }


@teachers.command("save", cls=Command, epilog=EXIT_CODES)
def save(
    run: Annotated[str, argument("A kept teacher's id, or that of a run whose student is kept.", metavar="ID", names_of=complete.teachers)],
    output: Annotated[Path, option("--output", "-o", text="The file to write, .npz or .safetensors.", metavar="FILE")],
    top: Annotated[
        int | None, option(text="Keep only the K most probable classes of each image.", default="all class scores", metavar="K")
    ] = None,
    embedding: Annotated[bool, option("--embedding", text="Keep the embedding too.", default="off")] = False,
    views: Annotated[
        str,
        option(
            text="Views of the training images to save: centre; all (every padded crop and flip of the teacher's recipe); or ids of runs "
            "(the views that these runs see).",
            default="centre",
            metavar="VIEWS",
        ),
    ] = "centre",
    check: Annotated[
        int, option(text="Number of rows of the file to compare with the live teacher; 0 to skip.", default=str(COMPARED_ROWS), metavar="N")
    ] = COMPARED_ROWS,
    results: ResultsFolder = Path("results"),
) -> int:
    """Save a teacher's outputs for every image of its data, for `kdzoo bench --teacher saved:FILE`.

    Each image is saved as evaluation sees it, whole or centre-cropped (the centre view). With --views, training images are also
    saved in the views that training shows, so that the teacher answers for exactly what a student sees.

    \b
    Examples:
      kdzoo teachers save none-0123456789ab -o answers.npz
      kdzoo teachers save none-0123456789ab -o top5.safetensors --top 5 --embedding
      kdzoo teachers save none-0123456789ab -o views.npz --views hinton-0123456789ab,hinton-ba9876543210
    """
    from kdzoo.teachers.file import CENTRE
    from kdzoo.training.located import LocatedRun
    from kdzoo.training.saving import ViewsSaved, save_teacher

    _refuse_negative(check)
    chosen_views: ViewsSaved = "centre"
    if views == "all":
        chosen_views = "all"
    elif views != "centre":
        chosen_views = [LocatedRun.read(run_folder(name.strip(), results)) for name in views.split(",")]
    file = save_teacher(LocatedRun.read(finished_run(run, results)), output, k=top, embedding=embedding, views=chosen_views)
    what = f"{file.classes} class scores" if file.k is None else f"the {file.k} most probable of {file.classes} classes"
    count = int((file.views != CENTRE).sum())
    of_views = f" and {count:,} views of training images" if count else ""
    print_text(
        f"{output}: {len(file.keys) - count:,} images in their centre view{of_views}, {what} "
        f"each{', and the embedding' if embedding else ''}"
    )
    print_text(f"use it: kdzoo bench --teacher {shlex.quote(f'saved:{output}')} --student NAME --data NAME")
    return _compare(output, run, check, results) if check else 0


@teachers.command("check", cls=Command, epilog=EXIT_CODES)
def check_file(
    file: Annotated[Path, argument("A file of saved answers.", metavar="FILE")],
    teacher: Annotated[
        str | None, option(text="The live teacher, by its run's id.", default="the one that the file names", metavar="ID")
    ] = None,
    check: Annotated[
        int, option(text="How many rows are compared, drawn at random.", default=str(COMPARED_ROWS), metavar="N")
    ] = COMPARED_ROWS,
    results: ResultsFolder = Path("results"),
) -> int:
    """Compare rows of a file of saved answers with the live teacher. Exits with 1 where they differ.

    \b
    Example:
      kdzoo teachers check answers.npz --check 256
    """
    _refuse_negative(check)
    return _compare(file, teacher, check, results)


def _compare(path: Path, teacher: str | None, count: int, results: Path) -> int:
    """Compare rows of a file with a live teacher and tell; the exit code."""
    from kdzoo.teachers.file_io import read_saved
    from kdzoo.training.located import LocatedRun
    from kdzoo.training.saving import compare_saved

    file = read_saved(path)
    live = teacher or file.teacher
    if live is None:
        raise InputError(f"{path}: names no live teacher; give --teacher ID")
    comparison = compare_saved(file, LocatedRun.read(finished_run(live, results)), count)
    verdict = "agree with" if comparison.agrees else "differ from"
    print_text(
        f"{comparison.rows:,} rows {verdict} {live}: the largest relative difference is {comparison.difference:.2g}, "
        f"and {comparison.same_class:.1%} name the same class"
    )
    return 0 if comparison.agrees else 1


def finished_run(name: str, results: Path) -> RunFolder:
    """A finished run with its weights; raises InputError where there is none of that id."""
    folder = run_folder(name, results)
    if folder.state() != "done" or not folder.student.is_file():
        raise InputError(f"teachers: {name} is not finished, or its weights are not kept (--keep student keeps a student's)")
    return folder


def _refuse_negative(check: int) -> None:
    if check < 0:
        raise InputError(f"check: expected a number of rows, 0 or more, got {check}")
