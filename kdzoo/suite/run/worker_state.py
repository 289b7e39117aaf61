"""What a worker keeps between jobs: data, teacher, networks of this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from kdzoo.contract.shapes import Shapes
from kdzoo.data.dataset import Dataset
from kdzoo.data.loader import place_on_device
from kdzoo.data.split import Splits
from kdzoo.models.placement import Placement
from kdzoo.runs.events import Emit, emit_notes
from kdzoo.runs.fields import parse
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.spec import Run
from kdzoo.runs.store import Store
from kdzoo.suite.run.followers import Followers, TorchrunFollowers
from kdzoo.teachers.teacher import Teacher
from kdzoo.training.located import LocatedRun, Modules, data_key, teacher_key
from kdzoo.training.run_data import load_run_data
from kdzoo.training.run_teacher import load_teacher


@dataclass
class WorkerState:
    """What a worker keeps between jobs: the last data and teacher with its predictions, and networks given as objects.

    plugins: those that it has loaded. followers: the processes that train its runs with it, once there are any.
    """

    modules: Modules = field(default_factory=Modules)
    plugins: Sequence[str] = ()
    followers: Followers | TorchrunFollowers | None = None
    datasets: dict[Any, tuple[Dataset, Splits]] = field(default_factory=dict)
    teachers: dict[Any, tuple[Teacher, Shapes]] = field(default_factory=dict)

    def data(self, located: LocatedRun, options: WorkerOptions) -> tuple[Dataset, Splits]:
        """The data of a run, on the device where it fits there; the last one is kept, as the teacher is."""
        key = (*data_key(located), options.device, options.image_cache)
        if key not in self.datasets:
            self.datasets = {}  # before the next one takes its place on the device
            dataset, splits = load_run_data(located, options.image_cache)
            self.datasets = {key: (dataset, place_on_device(splits, torch.device(options.device)))}
        return self.datasets[key]

    def teacher(
        self, located: LocatedRun, dataset: Dataset, splits: Splits, execution: Placement, emit: Emit
    ) -> tuple[Teacher | None, Shapes | None]:
        """The teacher of a run; the last one is kept, since cohorts that share it follow each other."""
        if located.run.teacher is None:
            return None, None
        key = teacher_key(located)
        if key not in self.teachers:
            served = load_teacher(located, dataset, splits, execution, self.modules)
            assert served is not None
            self.teachers = {key: served}
            emit_notes(served[0].notes, emit)
        return self.teachers[key]


def probe_of(entry: Mapping[str, Any], store: Store) -> LocatedRun:
    """What a job carries of a run that has no folder."""
    run = parse(Run, entry["run"], "doses")
    return LocatedRun(run, store.run(run.id), entry["about"].get("paths", {}))
