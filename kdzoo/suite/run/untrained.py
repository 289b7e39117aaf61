"""The data and the untrained networks of a plan's runs, each made once for all runs that share it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kdzoo.contract.shapes import Shapes
from kdzoo.data.dataset import Dataset
from kdzoo.data.split import Splits
from kdzoo.models.agglomerate import AGGLOMERATE
from kdzoo.models.ensemble import Ensemble
from kdzoo.models.measure import measure_shapes as shapes_of
from kdzoo.models.measure import network_cost, with_random_embeddings
from kdzoo.models.network import Network, freeze
from kdzoo.models.placement import Placement
from kdzoo.runs.spec import NetworkSpec
from kdzoo.runs.store import RunFolder
from kdzoo.suite.plan.planned import Plan, PlannedRun
from kdzoo.teachers.teacher import Teacher, live_teacher
from kdzoo.training.located import LocatedRun, Modules, data_key
from kdzoo.training.run_data import input_shape, load_run_data
from kdzoo.training.run_networks import load_network, members_of
from kdzoo.training.run_student import student_network, student_shapes
from kdzoo.training.run_teacher import teacher_without_network


class Untrained:
    """Makes data and networks for runs that are not trained, and keeps what the next run is likely to share.

    Students and the shapes of teachers are all kept; of data and of teachers, which may be large, the last.
    """

    def __init__(self, modules: Modules, image_cache: int | None = None) -> None:
        self.modules = modules
        self._image_cache = image_cache
        self._data: dict[tuple[Any, ...], tuple[Dataset, Splits]] = {}
        self._students: dict[str, tuple[Network, Shapes]] = {}
        self._teachers: dict[str, tuple[Network | Teacher, Shapes] | None] = {}
        self._teacher_shapes: dict[str, Shapes | None] = {}

    def data(self, located: LocatedRun) -> tuple[Dataset, Splits]:
        """The images and the parts of a run's data; raises InputError where they are not those it was planned with."""
        key = data_key(located)
        if key not in self._data:
            self._data = {key: load_run_data(located, self._image_cache)}
        return self._data[key]

    def student(self, located: LocatedRun) -> tuple[Network, Shapes]:
        """A run's student with the weights that it starts from; runs of other seeds share it."""
        key = str(located.run.student)
        if key not in self._students:
            dataset, _ = self.data(located)
            network = student_network(located, dataset, self.modules)
            self._students[key] = network, student_shapes(located.run, network, dataset, self.modules)
        return self._students[key]

    def teacher_shapes(self, located: LocatedRun) -> Shapes | None:
        """What the outputs of a run's teacher measure; None where it has none."""
        key = str(located.run.teacher)
        if key not in self._teacher_shapes:
            teacher = self.teacher(located)
            self._teacher_shapes[key] = None if teacher is None else teacher[1]
        return self._teacher_shapes[key]

    def teacher(self, located: LocatedRun) -> tuple[Network | Teacher, Shapes] | None:
        """A stand-in for a run's teacher: its network with random weights, with its shapes and its cost, or one that is no network."""
        key = str(located.run.teacher)
        if key not in self._teachers:
            self._teachers = {key: self._make_teacher(located)}
        return self._teachers[key]

    def live_teacher(self, located: LocatedRun, execution: Placement) -> tuple[Teacher | None, Shapes | None]:
        """The stand-in for a run's teacher as it teaches, with the shapes of its outputs; None each where the run has none."""
        source, shapes = self.teacher(located) or (None, None)
        if not isinstance(source, Network):
            return source, shapes
        dataset, splits = self.data(located)
        cost = network_cost(source, input_shape(dataset, located.run.recipe))
        columns = None if located.run.teacher is None else located.run.teacher.columns
        return live_teacher(source, "untrained", cost, splits.truncate_eval(1), located.run.recipe.augment, execution, columns), shapes

    def _make_teacher(self, located: LocatedRun) -> tuple[Network | Teacher, Shapes] | None:
        spec = located.run.teacher
        if spec is None:
            return None
        dataset, splits = self.data(located)
        if (without_network := teacher_without_network(located, splits)) is not None:
            return without_network
        shape = input_shape(dataset, located.run.recipe)

        def make(one: NetworkSpec) -> Network:
            random_start = one.model_copy(update={"start": "random"})
            return freeze(load_network(random_start, dataset, side=shape[1], seed=0, path=None, modules=self.modules))

        path = located.paths.get("teacher")
        if spec.name == AGGLOMERATE:  # only its file says which networks it has
            network = freeze(load_network(spec, dataset, side=shape[1], seed=0, path=path, modules=self.modules))
        else:
            members = members_of(spec, path)
            network = Ensemble([make(member) for member, _ in members]) if members else make(spec)
        return network, with_random_embeddings(shapes_of(network, shape))


def bind(planned: PlannedRun, plan: Plan) -> LocatedRun:
    """A planned run with its folder, which need not exist yet."""
    return LocatedRun(planned.run, RunFolder(plan.folder / "runs" / planned.run.id), planned.about["paths"])


def distinct(planned: Iterable[PlannedRun], key: Callable[[PlannedRun], tuple[str, ...]]) -> list[PlannedRun]:
    """The first planned run of each key, in order."""
    first: dict[tuple[str, ...], PlannedRun] = {}
    for one in planned:
        first.setdefault(key(one), one)
    return list(first.values())
