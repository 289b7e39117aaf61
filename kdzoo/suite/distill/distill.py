"""The short way: a large network, a folder of images, one method and recipe; at the end a small network and a verdict."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from rich.console import Console
from torch import nn

from kdzoo.data.known import FOLDER
from kdzoo.errors import InputError, WorkFailed
from kdzoo.files import cache_folder
from kdzoo.models.identity import module_name
from kdzoo.runs.atomic import ensure_writable, write_bytes, write_json
from kdzoo.runs.events import Emit, Event, Note, emit_notes
from kdzoo.runs.options import Execution
from kdzoo.runs.store import teacher_store
from kdzoo.suite.distill.arrays import data_name
from kdzoo.suite.distill.judge import held_out, judge
from kdzoo.suite.distill.page import build_page
from kdzoo.suite.distill.plan import plan_distillation
from kdzoo.suite.distill.time_limit import is_over
from kdzoo.suite.distill.trained import Trained, after_last_epoch, at_best_epoch
from kdzoo.suite.distill.verdict import Verdict, conclusion, table
from kdzoo.suite.distill.wish import Wish, seconds_in
from kdzoo.suite.export.card import card_words, licence_lines
from kdzoo.suite.export.export import Format, check_request, write_student
from kdzoo.suite.export.folders import filled_folder
from kdzoo.suite.export.int8 import Way
from kdzoo.suite.export.qat import Teaching
from kdzoo.suite.export.student import student_of
from kdzoo.suite.export.timm_format import write_timm
from kdzoo.suite.plan.config import DISTILL_METHOD, DISTILL_RECIPE
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.report.records import read_record
from kdzoo.suite.run.bench import run as run_bench
from kdzoo.suite.run.display import open_display
from kdzoo.suite.run.launchers import LauncherSetup, create_launcher
from kdzoo.suite.run.prepare import Prepared
from kdzoo.training.finish import student_metadata
from kdzoo.training.located import Modules

PAGE = "report.html"
"""of a distillation, in its folder"""


@dataclass(frozen=True)
class Distilled:
    """What `kdzoo.distill` returns: the student in evaluation mode that the verdict keeps, and how it compares."""

    student: nn.Module
    """the one that `verdict.kept` names"""
    accuracy: float
    """of the distilled student, whether or not it is the one that is kept"""
    baseline: float
    """of the same student trained alone"""
    teacher_accuracy: float
    verdict: Verdict


def distill_folder(wish: Wish, handle: Emit | None = None) -> Verdict:
    """Distil a teacher into a student on a folder's images; leave weights, classes, verdict and README in `wish.results`.

    A bare name of a teacher means its pretrained weights where there are any; one made for other classes is fine-tuned on
    these first. The student is trained twice with the same seed and batches, with the teacher and alone, so that the verdict
    is fair. Run the same call again to resume. Raises InputError before any work for what cannot be done, and WorkFailed
    where a run fails.
    """
    tell = handle or (lambda event: None)
    stop = is_over(monotonic(), wish.seconds)
    check_request(wish.format, int8=wish.int8)
    prepared, found = plan_distillation(wish, Modules())
    ensure_writable(wish.results)
    notes: list[str] = []
    listen = partial(keep_note, notes, tell)
    emit_notes(found, listen)
    with create_launcher(LauncherSetup(cache_folder() / "logs" / "distill", device=wish.execution.get("device", "auto"))) as launcher:
        outcome = run_bench(prepared, launcher, listen, retry_failed=True, stop=stop)
    trained = trained_networks(outcome, prepared, wish.method, stop, Modules())
    verdict = judge(trained, prepared, wish.method, tuple(dict.fromkeys(notes)))
    trained.move_to_cpu()
    emit_notes(deliver(wish, wish.results, trained, verdict), tell)
    return verdict


def trained_networks(outcome: Outcome, prepared: Prepared, method: str, stop: Callable[[], bool], modules: Modules) -> Trained:
    """What was trained: to the last epoch, or to the best one where the time was over.

    Raises WorkFailed with every run that failed, or where the time was over before both students had ended an epoch.
    """
    folders = [*map(prepared.plan.store.run, outcome.failed), *map(teacher_store().run, prepared.plan.teachers)]
    has_failed = any(folder.state() == "failed" for folder in folders)
    if outcome.failed and stop() and not has_failed:
        return at_best_epoch(prepared, method, modules)
    refuse_unfinished(outcome)
    return after_last_epoch(prepared, method, modules)


def deliver(wish: Wish, out: Path, trained: Trained, verdict: Verdict) -> tuple[str, ...]:
    """Write what a distillation delivers into a folder; a sentence each on what another format than timm's came to.

    That is weights, classes, the code that reads images, README, verdict and its page, and below it the format of a wish.
    """
    student_run = trained.kept(verdict)
    student = student_of(student_run.located, student_run.network, trained.dataset, student_metadata(student_run.located.folder))
    licences = licence_lines(read_record(student_run.located.folder))
    rows = ["    " + line for line in table(verdict)]
    words = "\n".join([*rows, "", conclusion(verdict), "", "## Licences", "", licences])
    write_timm(out, student, words)
    page = build_page(verdict, held_out(trained, verdict), student_run.located.run.recipe.augment, licences)
    write_bytes(out / PAGE, page.encode())
    write_json(out / "verdict.json", json.loads(json.dumps(asdict(verdict))))
    if wish.format == "timm":
        return ()
    folder = out / wish.format
    card = card_words(student_run.located.folder) if verdict.cut_short is None else words
    run = trained.distilled.located.run
    teacher = Teaching(trained.teacher, run.teacher.name) if run.teacher is not None and verdict.kept == "distilled" else None
    with filled_folder(folder) as place:
        found = write_student(student, trained.splits, teacher, card, wish.format, place, pixels=False, int8=wish.int8)
    return tuple(f"{folder}: {note}" for note in found or ("written",))


def distill(
    student: str | nn.Module,
    teacher: str | nn.Module,
    data: str | Path | tuple[tuple[Any, Any], tuple[Any, Any]],
    *,
    out: str | Path | None = None,
    method: str = DISTILL_METHOD,
    recipe: str = DISTILL_RECIPE,
    epochs: int | None = None,
    time: str | None = None,
    lr: float | None = None,
    image_size: int | None = None,
    seed: int = 0,
    results: str | Path | None = None,
    execution: Execution | None = None,
    skip_unreadable: bool = False,
    licence: str | None = None,
    progress: bool = True,
    format: Format = "timm",
    int8: Way | None = None,
) -> Distilled:
    """Train a student under a teacher and return it, with the same student trained alone to compare with.

    student, teacher: names in the words of the command line (`kdzoo distill --help`), or modules; a teacher's module is
    used as it is, and must score the classes of the data. data: a folder of images, a data set's name, or
    ((images, labels), (images, labels)) of train and test with images (N, H, W[, C]) or (N, C, H, W) uint8 and labels that
    are numbers or names. out: where to leave what the command line leaves in its folder: weights, classes, README, verdict
    and runs; for a folder of images and a student by name. method, recipe and image size are by default those of the
    command line. time: how long it may take, such as `2h`, in place of epochs; where it is over early, both students
    are those of their best validation epochs (`verdict.cut_short`). licence: which licences teacher, start and data
    may have, `permissive` or `permissive,unknown`; None for any. results: the folder of the runs; None for `out`, or else
    `results`. Trains in this process, through the same trainer as a bench; the same call again trains nothing. The student that
    is returned is the distilled one, unless it is shown to be worse than the one trained alone. execution: how it is executed, as
    `kdzoo.Execution(device="cuda")`; without `threads` it takes as many as torch has (`torch.get_num_threads`, which
    OMP_NUM_THREADS sets), and torch's number is restored afterwards. progress: whether what is trained is shown as a bench
    shows it. The notes on data and networks are in `verdict.notes`.
    format, int8: as `kdzoo export` has them, for what is left in `out` too.
    Raises InputError before any work, and WorkFailed where a run fails.
    """
    name = data_name(data)
    check_request(format, int8=int8)
    if out is None and format != "timm":
        raise InputError(f"format: {format} is written into a folder; give out=FOLDER")
    if out is not None and (isinstance(student, nn.Module) or not name.startswith(FOLDER)):
        raise InputError(
            "out: expected a folder of images as data and the name of a network as student: the README that is left there is code "
            "that reads image files and creates the network; without `out` the trained network is returned alone"
        )
    modules = Modules({module_name(m): m for m in (student, teacher) if isinstance(m, nn.Module)})
    options = {"threads": torch.get_num_threads(), **(execution.explicit() if execution is not None else {})}
    runs, place = ("distill", Path("results")) if out is None else ("runs", Path(out))
    wish = Wish(
        data=name,
        teacher=module_name(teacher) if isinstance(teacher, nn.Module) else teacher,
        student=module_name(student) if isinstance(student, nn.Module) else student,
        results=place if results is None else Path(results),
        name=runs,
        method=method,
        recipe=recipe,
        epochs=epochs,
        seconds=None if time is None else seconds_in(time),
        lr=lr,
        image_size=image_size,
        seed=seed,
        execution=options,
        skip_unreadable=skip_unreadable,
        licence=licence,
        format=format,
        int8=int8,
    )
    stop = is_over(monotonic(), wish.seconds)
    prepared, found = plan_distillation(wish, modules)
    if out is not None:
        ensure_writable(Path(out))
    notes: list[str] = []
    before = torch.get_num_threads()
    setup = LauncherSetup(cache_folder() / "logs" / "distill", device=str(options.get("device", "auto")), modules=modules)
    try:
        with open_display(Console(quiet=not progress)) as display, create_launcher(setup, "here") as launcher:
            listen = partial(keep_note, notes, display.handle)
            emit_notes(found, listen)
            outcome = run_bench(prepared, launcher, listen, retry_failed=True, modules=modules, stop=stop)
        trained = trained_networks(outcome, prepared, method, stop, modules)
        verdict = judge(trained, prepared, method, tuple(dict.fromkeys(notes)))
        trained.move_to_cpu()
        if out is not None:
            notes += deliver(wish, Path(out), trained, verdict)
    finally:
        torch.set_num_threads(before)
    return Distilled(
        trained.kept(verdict).network.model.eval(), verdict.distilled.accuracy, verdict.alone.accuracy, verdict.teacher.accuracy, verdict
    )


def keep_note(notes: list[str], further: Emit, event: Event) -> None:
    """Pass an event on, and keep the text of a note."""
    if isinstance(event, Note):
        notes.append(event.text)
    further(event)


def refuse_unfinished(outcome: Outcome) -> None:
    """Raise WorkFailed with every run that failed."""
    if outcome.failed:
        raise WorkFailed("\n".join(f"{run_id} failed: {reason}" for run_id, reason in outcome.failed.items()))
