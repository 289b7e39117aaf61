"""The plan of a refit: the chosen settings on the whole training set, with seeds that no sweep has used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kdzoo.data.report import without_validation
from kdzoo.runs.spec import DataSpec, Run
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.planned import Plan, PlannedRun
from kdzoo.suite.plan.refit import fresh_seeds


def refit(
    settings: Iterable[tuple[Run, Mapping[str, Any]]], config: BenchConfig, teachers: Mapping[str, PlannedRun], used: Iterable[int] = ()
) -> Plan:
    """The chosen settings on the whole train set, with seeds that no sweep has used, their teachers too.

    used: the seeds of sweeps in the bench's folder, beyond those of this bench.
    """
    refit_teachers: dict[str, PlannedRun] = {}
    students: dict[str, PlannedRun] = {}
    used_seeds = tuple(used)
    for run, planned_about in settings:
        about = {**planned_about, **({"data": without_validation(planned_about["data"])} if "data" in planned_about else {})}
        teacher, paths = run.teacher, dict(about["paths"])
        if teacher is not None:
            about["sweep_teacher"] = teacher.start
        teacher_id = str(about.get("teacher_id"))
        if teacher is not None and teacher_id in teachers:
            sweep_teacher = teachers[teacher_id].run
            refit_teacher = sweep_teacher.model_copy(update={"data": _whole(sweep_teacher.data)})
            data_record = teachers[teacher_id].about.get("data")
            refit_teachers[refit_teacher.id] = PlannedRun(
                refit_teacher,
                {**teachers[teacher_id].about, "phase": "refit", **({"data": without_validation(data_record)} if data_record else {})},
            )
            teacher = teacher.model_copy(update={"start": f"run:{refit_teacher.id}"})
            paths.pop("teacher", None)
            teacher_id = refit_teacher.id
        for seed in fresh_seeds(run.objective.label, config, used_seeds):
            refit_run = run.model_copy(update={"teacher": teacher, "data": _whole(run.data), "seed": seed})
            record = {**about, "phase": "refit", "teacher_id": teacher_id if teacher else None, "paths": paths}
            students[refit_run.id] = PlannedRun(refit_run, record)
    return Plan(config.name, Path(config.results) / config.name, tuple(students.values()), refit_teachers, len(students))


def _whole(data: DataSpec) -> DataSpec:
    return data.model_copy(update={"val_fraction": 0.0})
