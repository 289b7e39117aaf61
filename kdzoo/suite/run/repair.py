"""Rename what is damaged in a run's folder, with a note, and make it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kdzoo.errors import InputError
from kdzoo.runs.atomic import set_aside
from kdzoo.runs.events import Emit, Note
from kdzoo.runs.seals import DamagedFile, read_sealed, read_tensors
from kdzoo.runs.store import RunFolder, is_teacher

ASIDE = "and the old file is kept as NAME.damaged"


@dataclass(frozen=True)
class Fault:
    """A file that is damaged or gone, and what is wrong with it, in a line."""

    file: Path
    text: str


def fault_of(folder: RunFolder) -> Fault | None:
    """Faults of the files in a finished run's folder from which other runs start: its weights, and a pretrain run's checkpoint.

    Weights that were not kept are a fault of a teacher alone. Raises InputError where run.json cannot be read.
    """
    read: dict[Path, Callable[[Path, str], object]] = {}
    if folder.read_plan()[0].kind == "pretrain":
        read[folder.checkpoint] = read_sealed
    if folder.student.exists() or is_teacher(folder):
        read[folder.student] = read_tensors
    for file, contents_of in read.items():
        try:
            contents_of(file, folder.id)
        except FileNotFoundError:
            return Fault(file, f"{file}: no such file")
        except DamagedFile as error:
            return Fault(file, str(error))
    return None


def forget_damaged(folder: RunFolder, emit: Emit) -> None:
    """Make a run new again whose result.json cannot be read, and say why; what was there stays beside it under another name."""
    if folder.state() != "damaged":
        return
    try:
        folder.result()
    except InputError as error:
        folder.reset()
        emit(Note(f"{error.problems[0]}; {folder.id} is trained again, {ASIDE}"))


def renew(folder: RunFolder, emit: Emit) -> None:
    """Make a finished run new again where what other runs start from is damaged or gone, and say so; the caller has its lock.

    What is damaged stays beside it under another name, and so does the result, without which the run is not done.
    """
    if folder.state() != "done":
        return
    fault = fault_of(folder)
    if fault is None:
        return
    if fault.file.exists():
        set_aside(fault.file)
    folder.reset()
    emit(Note(f"{fault.text}; {folder.id} is trained again, {ASIDE}"))


def renew_unlocked(folder: RunFolder, emit: Emit) -> None:
    """Make a finished run new again where what it keeps is damaged or gone, unless another process has its lock."""
    if folder.state() == "done":
        with folder.lock() as free:
            if free:
                renew(folder, emit)


def forget_progress(folder: RunFolder, fault: str, emit: Emit) -> None:
    """Make a run new again whose lost record only training can write anew, and say so; its files stay beside it."""
    with folder.lock() as free:
        if not free:
            return
        if folder.checkpoint.exists():
            set_aside(folder.checkpoint)
        folder.go_on()
        folder.reset()
    emit(Note(f"{fault}; {folder.id} is trained again from its start, {ASIDE}"))


def begin_again(folder: RunFolder, damage: DamagedFile, emit: Emit) -> None:
    """Rename a checkpoint that cannot be resumed, and say so; the caller has the run's lock."""
    set_aside(folder.checkpoint)
    emit(Note(f"{damage}; {folder.id} starts again, {ASIDE}"))
