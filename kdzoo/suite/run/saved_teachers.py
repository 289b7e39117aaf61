"""Checks saved teachers before training: their files hold all that runs read, and agree with the live teachers."""

from __future__ import annotations

from kdzoo.errors import InputError, collect_problems
from kdzoo.runs.store import teacher_store
from kdzoo.suite.plan.planned import Plan, PlannedRun
from kdzoo.suite.run.untrained import Untrained, bind, distinct
from kdzoo.training.located import LocatedRun
from kdzoo.training.run_teacher import refuse_missing_answers, saved_file
from kdzoo.training.saving import compare_saved


def check_saved_teachers(plan: Plan, untrained: Untrained, rows: int) -> list[str]:
    """Notes on saved teachers whose files agree with the live ones; raises InputError for what files lack, and for those that differ.

    rows: how many of a file are compared where its live teacher is kept here; 0 for none.
    """
    saved = [planned for planned in plan.students if planned.run.teacher is not None and planned.run.teacher.saved is not None]

    def reading(planned: PlannedRun) -> tuple[str, ...]:
        run = planned.run
        return tuple(map(str, (run.teacher, run.data, run.recipe, run.seed, run.objective)))

    problems: list[str] = []
    notes: list[str] = []
    for planned in distinct(saved, reading):
        with collect_problems(problems):
            located = bind(planned, plan)
            refuse_missing_answers(located, untrained.data(located)[1])
    for planned in distinct(saved if rows else [], lambda one: (str(one.run.teacher),)):
        with collect_problems(problems):
            notes += _compare(bind(planned, plan), plan, rows)
    if problems:
        raise InputError(*problems)
    return notes


def _compare(located: LocatedRun, plan: Plan, rows: int) -> list[str]:
    """A note on rows of a file that agree with its live teacher; none where that is not kept. Raises InputError where they differ."""
    file = saved_file(located)
    if file.teacher is None:
        return []
    folders = (store.run(file.teacher) for store in (teacher_store(), plan.store))
    live = next((run for run in folders if run.state() == "done" and run.student.is_file()), None)
    if live is None:
        return []
    found = compare_saved(file, LocatedRun.read(live), rows)
    if not found.agrees:
        raise InputError(
            f"saved:{file.path}: its rows differ from its live teacher, {live.id}: by up to {found.difference:.2g} relative to the "
            f"largest value in {found.rows} rows; save them again (kdzoo teachers save), or pass --check 0 to teach with them as they are"
        )
    return [f"teacher {file.name}: {found.rows} rows of its file agree with the live teacher, {live.id}"]
