"""The teacher of a run: a frozen network, or a file of saved answers."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.shapes import Shapes
from kdzoo.data.dataset import Dataset
from kdzoo.data.split import Splits
from kdzoo.errors import InputError
from kdzoo.models.measure import measure_shapes, network_cost
from kdzoo.models.network import freeze
from kdzoo.models.placement import Placement
from kdzoo.models.predict import SampleEmbeddings
from kdzoo.teachers.file import SavedFile
from kdzoo.teachers.file_io import read_saved
from kdzoo.teachers.saved import problems_of_saved, saved_teacher, shapes_of_saved
from kdzoo.teachers.teacher import Teacher, live_teacher
from kdzoo.training.located import LocatedRun, Modules
from kdzoo.training.run_data import input_shape
from kdzoo.training.run_networks import load_network


def saved_file(located: LocatedRun) -> SavedFile:
    """The file of a run's saved teacher; raises InputError where it is gone or is not the one that was planned."""
    spec, path = located.run.teacher, located.paths.get("teacher")
    assert spec is not None
    assert spec.saved is not None
    if path is None or not Path(path).is_file():
        raise InputError(f"teacher {spec.name}: its file of saved answers has moved: looked in {path}")
    return _saved_file(Path(path), spec.name, spec.saved)


@lru_cache(maxsize=1)
def _saved_file(path: Path, name: str, digest: str) -> SavedFile:
    file = read_saved(path)
    if file.digest != digest:
        raise InputError(f"teacher {name}: {path} is not the file that was planned (sha256 {digest[:12]}..., now {file.digest[:12]}...)")
    return file


def refuse_missing_answers(located: LocatedRun, splits: Splits) -> None:
    """Raises InputError for what a run reads of its saved teacher that the file does not hold."""
    needs = {term.method: REGISTRY.get(term.method).card.needs.resolve(preact=False).teacher for term in located.run.objective.all_terms}
    if problems := problems_of_saved(saved_file(located), splits, located.run.recipe, located.run.seed, needs):
        raise InputError(*problems)


def teacher_without_network(located: LocatedRun, splits: Splits) -> tuple[Teacher, Shapes] | None:
    """The teacher of a run where it is no network, such as a file of saved answers; None where it is one."""
    if located.run.teacher is None or located.run.teacher.is_network:
        return None
    file = saved_file(located)
    return saved_teacher(file, splits, located.run.recipe, located.run.teacher.columns), shapes_of_saved(file)


def load_teacher(
    located: LocatedRun, dataset: Dataset, splits: Splits, execution: Placement, modules: Modules
) -> tuple[Teacher, Shapes] | None:
    """The frozen teacher of a run with its predictions, or None."""
    if located.run.teacher is None:
        return None
    if (without_network := teacher_without_network(located, splits)) is not None:
        return without_network
    side = input_shape(dataset, located.run.recipe)[1]
    source = load_network(located.run.teacher, dataset, side=side, seed=0, path=located.paths.get("teacher"), modules=modules)
    network = freeze(execution.place(source, located.run.recipe.precision))
    shape = input_shape(dataset, located.run.recipe)
    cost = network_cost(network, shape)
    spec = located.run.teacher
    augment = located.run.recipe.augment
    teacher = live_teacher(network, spec.name, cost, splits, augment, execution, spec.columns)
    return teacher, replace(measure_shapes(network, shape), embed=SampleEmbeddings(network, splits.train, augment, execution.device))
