"""The licences of what a run is made from: the teacher's weights, the student's start, the data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdzoo.data.known import licence_of_data, path_of
from kdzoo.errors import InputError
from kdzoo.models.licences import file_licence, pretrained_licence
from kdzoo.models.request import ensemble_ids
from kdzoo.runs.licences import OWN, PARTS, UNKNOWN, Licensed, Part, recorded
from kdzoo.runs.spec import NetworkSpec, Run
from kdzoo.runs.store import RunFolder, teacher_store
from kdzoo.suite.plan.planned import PlannedRun
from kdzoo.training.located import WeightFiles


def things_of_run(run: Run, paths: Mapping[str, Any], teacher: PlannedRun | None = None) -> tuple[Licensed, ...]:
    """What a run is made from, each thing once. paths: where its files were found. teacher: the run that trains its teacher first."""
    of_teacher = () if run.teacher is None else things_of_weights("teacher", run.teacher, paths.get("teacher"), teacher)
    of_start = things_of_weights("student's start", run.student, paths.get("student"), None)
    things = dict.fromkeys((*of_teacher, *of_start, *things_of_data(run, paths)))
    return tuple(sorted(things, key=lambda thing: PARTS.index(thing.part)))


def things_of_data(run: Run, paths: Mapping[str, Any]) -> tuple[Licensed, ...]:
    """The data that a run learns from."""
    data = _thing_of_data("data", str(paths.get("data", run.data.name)))
    if run.data.transfer is None or run.data.transfer.images is None:
        return (data,)
    return data, _thing_of_data("transfer data", str(paths.get("transfer_data")))


def _thing_of_data(part: Part, request: str) -> Licensed:
    """A data set by name, or a folder by its own name: its whole path would name a machine."""
    path = path_of(request)
    name = request if path is None else path.resolve().name
    return Licensed(part, name, licence_of_data(request))


def things_of_weights(part: Part, spec: NetworkSpec, path: WeightFiles, trained: PlannedRun | None) -> tuple[Licensed, ...]:
    """What a network's weights are made from. path: their file. trained: the run that trains them first."""
    kind, _, name = spec.start.partition(":")
    if spec.name.startswith("module:"):
        return (Licensed(part, spec.name, UNKNOWN),)
    if kind == "pretrained":
        return (Licensed(part, *pretrained_licence(spec.name)),)
    if kind == "run":
        ids = ensemble_ids(name)
        files = path if isinstance(path, list) else [path] * len(ids)
        return tuple(thing for run_id, file in zip(ids, files, strict=True) for thing in _things_of_trained(part, run_id, file, trained))
    if kind in ("file", "saved"):
        return (Licensed(part, Path(str(path)).name, file_licence(Path(str(path)))),)
    return (Licensed(part, spec.name if part == "teacher" else "random weights", OWN),)


def _things_of_trained(part: Part, run_id: str, file: str | None, trained: PlannedRun | None) -> tuple[Licensed, ...]:
    """What the weights that a run has trained are made from: what it started from, its teacher and its data."""
    if trained is not None and trained.run.id == run_id:
        run, about = trained.run, trained.about
    else:
        try:
            run, about = (RunFolder(Path(file).parent) if file is not None else teacher_store().run(run_id)).read_plan()
        except InputError:  # moved, which whoever reads the weights says
            return (Licensed(part, run_id, UNKNOWN),)
    things = recorded(about) or things_of_run(run, about.get("paths", {}))
    return tuple(_as_part(part, thing, run.student.name) for thing in things)


def _as_part(part: Part, thing: Licensed, network: str) -> Licensed:
    """The source of a network's starting weights, which is a source of everything made from the network."""
    if thing.part != "student's start":
        return thing
    return Licensed(part, network if thing.licence == OWN and part == "teacher" else thing.of, thing.licence)
