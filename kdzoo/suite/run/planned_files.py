"""Writes what a bench keeps before it trains: run.json of every planned run, its command, the files of its plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path

from kdzoo.contract.code_version import files_beside
from kdzoo.data.known import DATA
from kdzoo.data.sources import data_files
from kdzoo.garbage import uncollected
from kdzoo.runs.events import Emit, Note
from kdzoo.runs.plan_text import PlanTexts
from kdzoo.runs.store import KnownRun, teacher_store
from kdzoo.suite.plan.doses import keep_doses, reused_doses
from kdzoo.suite.plan.planned import Plan, PlannedRun
from kdzoo.suite.plan.starts import Start, keep_start
from kdzoo.suite.run.prepare import Prepared


@uncollected()
def write_plan(plan: Plan, known: Mapping[str, KnownRun] | None = None) -> list[str]:
    """Write run.json of every planned run, and of the teachers that have to be trained; what was wrong with those there.

    known: runs that were read before; what says what is planned is left alone.
    """
    written = {run_id for run_id, one in (known or {}).items() if plan.store.run(run_id).has_plan_of(one)}
    missing = [planned for planned in plan.students if planned.run.id not in written]
    texts = PlanTexts()
    faults = [plan.store.run(planned.run.id).plan(planned.run, planned.about, texts) for planned in missing]
    return [*(fault for fault in faults if fault is not None), *write_teachers(plan)]


def write_teachers(plan: Plan) -> list[str]:
    """Write run.json of the teachers that have to be trained; what was wrong with those there."""
    faults = [teacher_store().run(planned.run.id).plan(planned.run, planned.about) for planned in plan.teachers.values()]
    return [fault for fault in faults if fault is not None]


def forget_failed_teachers(plan: Plan) -> None:
    for teacher in map(teacher_store().run, plan.teachers):
        if teacher.state() == "failed":
            teacher.reset()


def keep_command(prepared: Prepared, plans: Iterable[Plan], command: str, emit: Emit) -> None:
    """Record in the bench's folder the command that trains it."""
    start = Start.of(command, prepared.config, (planned.run.id for plan in plans for planned in plan.students))
    if fault := keep_start(prepared.plan.folder, start):
        emit(Note(fault))


def keep_reused(prepared: Prepared) -> None:
    """Copy the measurements that the bench uses of another bench into its own folder, so that it no longer needs the other."""
    if prepared.config.doses_from is None:
        return
    keys = {dose["measured"] for planned in prepared.plan.students for dose in planned.about.get("doses", {}).values()}
    keep_doses(prepared.plan.folder, {key: one for key, one in reused_doses(prepared.config.doses_from).items() if key in keys})


def files_of(prepared: Prepared, plans: Iterable[Plan]) -> list[Path] | None:
    """The files that a bench was planned from; None where no file holds what it depends on (other packages)."""
    config = prepared.config
    sources = [config.data, *([config.transfer_data] if config.transfer_data else [])]
    if any(DATA.plugin_of(source) is not None for source in sources) or entry_points(group="kdzoo.methods"):
        return None
    names = [
        config.recipe,
        config.doses_from,
        *config.plugin,
        *(file for plan in plans for planned in plan.students for role in ("teacher", "student") for file in _weight_files(planned, role)),
    ]
    files = [Path(name) for name in dict.fromkeys(names) if name is not None and Path(name).exists()]
    files += [file for plugin in config.plugin for file in files_beside(Path(plugin))]
    root = Path(config.data_root) if config.data_root else None
    return [*files, *(file for source in sources for file in data_files(source, root))]


def _weight_files(planned: PlannedRun, role: str) -> list[str | None]:
    """The files of a network's weights as a list."""
    files = planned.about["paths"].get(role)
    return files if isinstance(files, list) else [files]
