"""A search within a budget: rung by rung, with the settings that go on; the others are paused (`kdzoo.suite.plan.budget`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kdzoo.runs.events import Emit, Note, emit_notes
from kdzoo.suite.plan.budget import search_rungs, settings_of
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.report.promotion import going_on
from kdzoo.suite.run.launchers.launcher import Launcher
from kdzoo.suite.run.planned_files import write_plan
from kdzoo.suite.run.prepare import Prepared
from kdzoo.suite.run.train_plan import train_plan
from kdzoo.text import number_of


def search(prepared: Prepared, launcher: Launcher, emit: Emit, *, retry_failed: bool, stop: Callable[[], bool] = lambda: False) -> Outcome:
    """Train what is missing of a search, rung by rung; how every run came out.

    Which settings go on is read off their metrics.jsonl each time, so that a search that was interrupted comes to the same.
    """
    plan, config = prepared.plan, prepared.config
    emit_notes(write_plan(plan), emit)
    settings = settings_of(plan.students)
    schedule = search_rungs(config, plan.students)
    outcome, names, before = Outcome(), list(settings), 0
    for number, rung in enumerate(schedule):
        if number:
            folders = {name: [plan.store.run(one.run.id) for one in settings[name]] for name in names}
            names = going_on(folders, before, rung.settings, config.controls)
        before = rung.epoch
        students = tuple(one for one in plan.students if str(one.run.objective) in set(names))
        is_last = rung is schedule[-1]
        emit(Note(f"budget: {number_of(len(names), 'setting')} up to epoch {rung.epoch}{', whole runs' if is_last else ''}"))
        part = replace(
            prepared,
            plan=replace(plan, students=students),
            options=prepared.options.model_copy(update={"until": None if is_last else rung.epoch}),
        )
        outcome = outcome.joined(train_plan(part, launcher, emit, retry_failed=retry_failed and number == 0, stop=stop))
        if stop():
            break
    return outcome
