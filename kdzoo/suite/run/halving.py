"""A search within a budget: rung by rung, with the settings that go on; the others are paused (`kdzoo.suite.plan.budget`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from kdzoo.errors import InputError
from kdzoo.runs.events import Emit, Note, emit_notes
from kdzoo.runs.metrics_file import validation_at
from kdzoo.runs.store import RunFolder
from kdzoo.suite.plan.budget import search_rungs, settings_of
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.report.promotion import promoted_settings
from kdzoo.suite.run.launchers.launcher import Launcher
from kdzoo.suite.run.planned_files import write_plan
from kdzoo.suite.run.prepare import Prepared
from kdzoo.suite.run.repair import forget_progress
from kdzoo.suite.run.train_plan import train_plan
from kdzoo.text import number_of


def search(prepared: Prepared, launcher: Launcher, emit: Emit, *, retry_failed: bool, stop: Callable[[], bool] = lambda: False) -> Outcome:
    """Train what is missing of a search, rung by rung; how every run came out.

    Which settings go on is read off their metrics.jsonl each time, so that a search that was interrupted comes to the same. A run
    whose file has lost what it is chosen by is trained again; raises InputError where that does not bring it back.
    """
    plan, config = prepared.plan, prepared.config
    emit_notes(write_plan(plan, prepared.known), emit)
    settings = settings_of(plan.students)
    schedule = search_rungs(config, plan.students)
    outcome, names, before = Outcome(), list(settings), 0
    for number, rung in enumerate(schedule):
        if number:
            folders = {name: [plan.store.run(one.run.id) for one in settings[name]] for name in names}
            names = promoted_settings(folders, before, rung.settings, config.controls)
        before = rung.epoch
        students = tuple(one for one in plan.students if str(one.run.objective) in set(names))
        is_last = rung is schedule[-1]
        emit(Note(f"budget: {number_of(len(names), 'setting')} up to epoch {rung.epoch}{', whole runs' if is_last else ''}"))
        part = replace(
            prepared,
            plan=replace(plan, students=students),
            options=prepared.options.model_copy(update={"until": None if is_last else rung.epoch}),
        )
        folders_of_rung = [plan.store.run(one.run.id) for one in students]
        for folder in folders_of_rung:
            end_pause(folder, part.options.until)
        outcome = outcome.joined(train_plan(part, launcher, emit, retry_failed=retry_failed and number == 0, stop=stop))
        if not is_last and not stop() and (unknown := without_line(folders_of_rung, rung.epoch)):
            for folder in unknown:
                forget_progress(folder, f"{folder.metrics}: nothing of validation after epoch {rung.epoch}", emit)
            outcome = outcome.joined(train_plan(part, launcher, emit, retry_failed=False, stop=stop))
        if stop():
            break
        if not is_last and (unknown := without_line(folders_of_rung, rung.epoch)):
            raise InputError(*(f"{folder.metrics}: expected a line with validation after epoch {rung.epoch}" for folder in unknown))
    return outcome


def end_pause(folder: RunFolder, until: int | None) -> None:
    """End the pause of a run that is to be trained on, before its cohort's turn: what stays paused was not promoted."""
    if folder.state() == "paused" and not folder.is_over(until):
        folder.go_on()


def without_line(folders: Iterable[RunFolder], epoch: int) -> list[RunFolder]:
    """Those runs that came to the end of an epoch, but whose metrics.jsonl does not say how they stood there."""
    return [
        folder for folder in folders if folder.state() in ("done", "paused") and validation_at(folder.metrics, folder.id, epoch) is None
    ]
