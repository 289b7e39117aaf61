"""What is wrong with the measures and surfaces of a study, and with the stages whose order it compares."""

from __future__ import annotations

from contextlib import suppress

from kdzoo.data.known import DATA
from kdzoo.errors import InputError, collect_problems, repeated, unknown
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.refit import wants_refit
from kdzoo.suite.report.axes import AXES
from kdzoo.suite.report.published import published_in
from kdzoo.suite.study.choice_faults import fields_of, wrong_keys, wrong_pair
from kdzoo.suite.study.measures import TEACHER, Cell
from kdzoo.suite.study.metrics import OF_A_CLASS, metric_names
from kdzoo.suite.study.study import Study, StudyStage, methods_of


def wrong_measures(study: Study) -> list[str]:
    names = [stage.name for stage in study.stages]
    problems = [f"measures: {name!r} stands there twice" for name in repeated(measure.name for measure in study.measures)]
    for measure in study.measures:
        where = f"measures, {measure.name!r}"
        for cell in measure.cells:
            if cell.stage is not None and cell.stage not in names:
                problems.append(f"{where}: {unknown('stage', cell.stage, names)}")
            elif (race := study.stage(cell.stage).race) is not None:
                problems.append(f"{where}: the runs of {study.stage(cell.stage).name} stand in stage {race.stage}; name that one")
            else:
                problems += [f"{where}: {problem}" for problem in _wrong_method(study, cell)]
                problems += [f"{where}: {problem}" for problem in _wrong_setting(study, cell)]
            problems += [f"{where}: {problem}" for problem in _wrong_metric(study, cell)]
    for table in study.published:
        if table.stage not in names:
            problems.append(f"published: {unknown('stage', table.stage, names)}")
        elif methods := methods_of(study, table.stage):
            strangers = [name for name in table.instead.values() if name not in methods]
            problems += [f"published.instead: {unknown(f'method of stage {table.stage}', name, methods)}" for name in strangers]
        with collect_problems(problems):
            published_in(table.table)
    return problems


def _wrong_setting(study: Study, cell: Cell) -> list[str]:
    """Keys of a cell's setting that its method does not have, and a pair and a phase that its stage does not train."""
    stage = study.stage(cell.stage)
    if stage.step is not None or cell.method in (None, TEACHER) or cell.method not in methods_of(study, cell.stage):
        return []
    return [*_wrong_phase(study, stage, cell.phase), *wrong_pair(study, cell.stage, cell.pair), *wrong_keys(cell.method, cell.setting)]


def _wrong_phase(study: Study, stage: StudyStage, phase: str | None) -> list[str]:
    missing = phase == "refit" and not wants_refit(study.config(stage))
    return [f"phase: stage {stage.name} trains no chosen settings again"] if missing else []


def _wrong_metric(study: Study, cell: Cell) -> list[str]:
    """What is wrong with the metric of a cell: a name that no run has, or a class that its data do not have."""
    name, _, label = cell.metric.partition(".")
    if not label:
        return [] if cell.metric in metric_names() else [unknown("metric", cell.metric, metric_names())]
    if not label.isdecimal() or cell.stage not in (None, *(stage.name for stage in study.stages)):
        return []  # the place of a number in a result; or of a stage whose name is told to be wrong
    if name not in OF_A_CLASS:
        return [] if study.stage(cell.stage).step is not None else [unknown("metric of a class", name, OF_A_CLASS)]
    bench = _bench_below(study, cell.stage)
    known = None if bench is None else DATA.find(bench.data)
    if known is not None and known.classes is not None and int(label) >= known.classes:
        return [f"metric {cell.metric}: expected a class from 0 to {known.classes - 1}"]
    return []


def _bench_below(study: Study, name: str | None) -> BenchConfig | None:
    """The bench of a stage, or that of the runs which a step reads; None where it has faults of its own."""
    try:
        stage = study.stage(name)
        return study.config(stage if stage.step is None else study.stage(stage.step.of.stage))
    except InputError:
        return None


def wrong_surfaces(study: Study) -> list[str]:
    names = [stage.name for stage in study.benches]
    problems = [f"surfaces: {name!r} stands there twice" for name in repeated(surface.name for surface in study.surfaces)]
    for surface in study.surfaces:
        where = f"surfaces, {surface.name!r}"
        if "." not in surface.metric and surface.metric not in metric_names():
            problems.append(f"{where}: {unknown('metric', surface.metric, metric_names())}")
        if surface.stage is not None and surface.stage not in names:
            problems.append(f"{where}: {unknown('stage that trains', surface.stage, names)}")
        elif (methods := methods_of(study, surface.stage)) and surface.method not in methods:
            problems.append(f"{where}: {unknown('method', surface.method, methods)}")
        else:
            problems += [f"{where}: {problem}" for problem in wrong_keys(surface.method, surface.setting)]
            problems += [f"{where}: {problem}" for problem in _wrong_phase(study, study.stage(surface.stage), surface.phase) if methods]
            axes = [*AXES, *fields_of(surface.method)]
            problems += [f"{where}: {unknown('axis', axis, axes)}" for axis in (surface.rows, surface.columns) if axis not in axes]
    return problems


def wrong_order(study: Study) -> list[str]:
    names = [stage.name for stage in study.benches]
    problems = [f"order: {unknown('stage that trains', name, names)}" for name in study.order if name not in names]
    problems += [f"order: {name!r} stands there twice" for name in repeated(study.order)]
    if len(study.order) == 1:
        problems.append("order: expected two stages or more")
    for name in study.order:
        with suppress(InputError):  # told with the faults of its bench
            if name in names and len(pairs := study.config(study.stage(name)).pairs) > 1:
                problems.append(f"order: stage {name} has {len(pairs)} pairs; expected one, since each table is set beside the others")
    return problems


def _wrong_method(study: Study, cell: Cell) -> list[str]:
    """What is wrong with the method of a cell whose stage there is."""
    stage = study.stage(cell.stage)
    if stage.step is not None:
        beside = [key for key in ("method", "pair", "setting", "phase") if key in cell.model_fields_set]
        return [f"stage {stage.name} is a step ({stage.kind}), whose numbers have no {' or '.join(beside)}"] if beside else []
    if cell.method is None:
        return ["method: missing"]
    methods = _methods(study, cell.stage)
    return [unknown("method", cell.method, methods)] if methods and cell.method not in methods else []


def _methods(study: Study, name: str | None) -> list[str]:
    """What a stage has numbers of: its methods and its teacher; nothing where its bench has faults of its own."""
    trained = methods_of(study, name)
    return [TEACHER, *trained] if trained else []
