"""The files of studies: shipped ones by name, or a path; read, and refused with all of their faults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from kdzoo.errors import InputError, collect_problems, unknown
from kdzoo.runs.fields import parse
from kdzoo.suite.plan.yaml_files import read_yaml
from kdzoo.suite.study.measure_faults import wrong_measures, wrong_order, wrong_surfaces
from kdzoo.suite.study.stage_faults import wrong_races, wrong_seeds, wrong_stages
from kdzoo.suite.study.study import FOLDER, Study


def read_study(file: Path) -> Study:
    """A study from its file; raises InputError with all of its faults."""
    try:
        study = parse(Study, read_yaml(file), "")
    except InputError as error:
        raise _refusal(file, error.problems) from error
    problems = [*wrong_stages(study), *wrong_races(study)]
    if problems and any(stage.race is not None for stage in study.stages):  # what else is wrong is told of the other stages
        study = study.model_copy(update={"stages": tuple(stage for stage in study.stages if stage.race is None)})
    if not study.stages:
        raise _refusal(file, problems)
    problems += [*wrong_seeds(study), *wrong_measures(study), *wrong_surfaces(study), *wrong_order(study)]
    for stage in study.benches:
        with collect_problems(problems):
            study.config(stage)
    if not (study.measures or study.published or study.surfaces or study.order):
        problems.append("measures: missing; expected measures, published with the name of a table, surfaces, or order")
    if not problems:
        for table in study.published:
            if not study._of_table(table):
                problems.append(f"published: stage {table.stage} trains no pair and method of {table.table}")
    if problems:
        raise _refusal(file, problems)
    return study


def _refusal(file: Path, problems: Iterable[str]) -> InputError:
    return InputError(*[f"study {file.stem}: {problem}" for problem in dict.fromkeys(problems)])


@cache
def shipped_studies() -> Mapping[str, Path]:
    """The studies that are shipped, by name."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.yaml"))}


def study_file(name: str) -> Path:
    """The file of a study: a shipped one by its name, or a path; raises InputError with the nearest name."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    if name not in shipped_studies():
        raise InputError(f"{unknown('study', name, shipped_studies())}; or a YAML file")
    return shipped_studies()[name]
