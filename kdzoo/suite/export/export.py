"""From a run's folder to a folder that runs elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from kdzoo.data.split import Splits
from kdzoo.errors import InputError
from kdzoo.models.weights import metadata_of
from kdzoo.runs.seals import OWNER
from kdzoo.runs.store import RunFolder, Store
from kdzoo.suite.export.card import card_words
from kdzoo.suite.export.folders import filled_folder, refuse_used
from kdzoo.suite.export.graph import require_packages
from kdzoo.suite.export.hf_format import write_hf
from kdzoo.suite.export.int8 import Way, int8_line
from kdzoo.suite.export.onnx_format import write_onnx
from kdzoo.suite.export.qat import Teaching, require_torchao
from kdzoo.suite.export.student import Student, load_student
from kdzoo.suite.export.timm_format import WEIGHTS, write_timm
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_data import input_shape
from kdzoo.training.run_networks import load_network

Format = Literal["timm", "onnx", "hf"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True)
class Exported:
    """What an export came to. notes: a sentence each."""

    folder: Path
    run_id: str
    notes: tuple[str, ...]


def export(
    located: LocatedRun, how: Format, out: Path, *, pixels: bool = False, int8: Way | None = None, image_cache: int | None = None
) -> Exported:
    """Write the student of a finished run in a format into a new folder, and check what was written.

    Nothing is left where that fails. pixels: whether an ONNX graph takes uint8 pixels and normalises them itself. int8: how it is
    quantised too, after training or (`qat`) with fine-tuning under the run's teacher, or under the student in float32 where the run has
    no network as teacher. image_cache: as `folder.load_folder` takes it. Raises InputError for what cannot be exported and for a folder
    with files in it, and WorkFailed where what was exported is not the student that was trained.
    """
    check_request(how, pixels=pixels, int8=int8)
    folder = located.folder
    refuse_used(out)
    student, splits = load_student(located, image_cache)
    if student.embeds and int8 is not None:
        raise InputError(f"{folder.id}: --int8 is judged by the classes that a student names, and a backbone has none; leave it out")
    teacher = teacher_of(located, student) if int8 == "qat" else None
    with filled_folder(out) as place:
        notes = write_student(student, splits, teacher, card_words(folder), how, place, pixels=pixels, int8=int8)
    return Exported(out, folder.id, notes)


def write_student(
    student: Student, splits: Splits, teacher: Teaching | None, words: str, how: Format, out: Path, *, pixels: bool, int8: Way | None
) -> tuple[str, ...]:
    """Write a student in a format into a folder; a sentence each on what it came to.

    teacher: who teaches it while it is quantised (`qat`). words: what is said of it below the code that uses it, in Markdown.
    """
    if how == "onnx":
        export = write_onnx(out, student, splits, words, pixels=pixels, int8=int8, teacher=teacher)
        return (f"opset {export.opset}; {export.agreement}", *([] if export.int8 is None else [int8_line(export.int8)]))
    if how == "timm":
        write_timm(out, student, words)
    else:
        write_hf(out, student, words)
    return ()


def teacher_of(located: LocatedRun, student: Student) -> Teaching | None:
    """The network that taught a run's student; None where there is none on disk. Raises InputError where its weights have moved."""
    spec = located.run.teacher
    if spec is None or spec.start.startswith("saved:") or spec.name.startswith("module:"):
        return None
    side = input_shape(student.dataset, student.recipe)[1]
    network = load_network(spec, student.dataset, side=side, seed=0, path=located.paths.get("teacher"), modules=Modules())
    return Teaching(network, spec.name)


def check_request(how: Format, *, pixels: bool = False, int8: Way | None = None) -> None:
    """Raise InputError for options that a format does not have, and for one whose packages are not installed."""
    options = [name for name, value in (("--pixels", pixels), ("--int8", int8)) if value]
    if options and how != "onnx":
        raise InputError(f"{' and '.join(options)}: only for an ONNX graph; leave it out, or use `--format onnx` instead of {how}")
    if how == "onnx":
        require_packages()
    if int8 == "qat":
        require_torchao()


def delivered_run(folder: Path) -> RunFolder | None:
    """The run of the student that `kdzoo distill` left in a folder; None for any other folder.

    Raises InputError where the runs are no longer beside it.
    """
    if not (folder / WEIGHTS).is_file() or (folder / "run.json").is_file():
        return None
    owner = metadata_of(folder / WEIGHTS).get(OWNER)
    if owner is None:
        return None
    run = Store(folder / "runs").run(owner)
    if not (run.path / "run.json").is_file():
        raise InputError(f"{folder}: its student is of the run {owner}, which is not in {folder / 'runs' / 'runs'}; name that run's folder")
    return run
