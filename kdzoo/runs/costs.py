"""What runs cost on this machine: kept in the cache folder when runs finish, read by estimates. Free of torch.

A kind of run is everything that decides what a training image costs, but for the data and the length of the training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdzoo.files import cache_folder, read_file
from kdzoo.runs.atomic import write_json
from kdzoo.runs.canonical import canonical_json
from kdzoo.runs.locks import file_lock
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.spec import NetworkSpec, Run

LARGEST_RECORD = 2000
"""kinds of runs in the record; the oldest go first"""
EVALUATION = 1 / 3
"""what evaluating an image counts beside training on one: a forward pass without its backward"""


@dataclass(frozen=True)
class RunCost:
    """Seconds of a run: before its first step, and for each image (`images_of_work`).

    They are processor time divided by the threads, on a GPU time by the clock, and include the run's share of what it has in
    common with others that train in lockstep.
    """

    setup: float
    image: float


def kind_of(run: Run, shape: tuple[int, int, int], options: WorkerOptions, machine: str) -> str:
    """The kind of a run as a key. shape: channels, height and width of its images. machine: of the device on which it trains."""
    return canonical_json(
        {
            "machine": machine,
            "threads": options.threads,
            "compile": options.compile,
            "stack": options.stack_students,
            **({} if options.processes_per_run == 1 else {"processes": options.processes_per_run}),
            "student": _network(run.student),
            "teacher": None if run.teacher is None else _network(run.teacher),
            "methods": run.objective.label,
            "batch_size": run.recipe.batch_size,
            "shape": shape,
            "recipe": run.recipe.model_dump(mode="json", include={"precision", "dot", "ema", "augment", "mixup", "cutmix", "learns"}),
        }
    )


def _network(spec: NetworkSpec) -> list[Any]:
    return [spec.name, spec.stem, spec.image_size]


def images_of_work(batch_size: int, steps: int, epochs: int, validation: int, test: int) -> float:
    """The work of training and evaluating, in training images: `steps` of a batch, validation after each of `epochs`, tests at the end."""
    ends = 2 if validation else 1  # the last epoch, and the best where one is chosen
    return steps * batch_size + EVALUATION * ((epochs + 1) * validation + ends * test)


def read_costs() -> dict[str, RunCost]:
    """The recorded costs of kinds of runs on this machine; empty where none has finished or the record is damaged."""
    try:
        content = json.loads(read_file(_file()))
        return {str(kind): RunCost(float(cost["setup"]), float(cost["image"])) for kind, cost in content["costs"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # it only makes estimates better, and fills again
        return {}


def keep_costs(costs: Mapping[str, RunCost]) -> None:
    """Add costs to the record, in the place of older ones of the same kind. Raises StoreError where it cannot be written."""
    file = _file()
    with file_lock(file.with_suffix(".lock")):
        rest = {kind: cost for kind, cost in read_costs().items() if kind not in costs}
        newest = list({**rest, **costs}.items())[-LARGEST_RECORD:]
        write_json(file, {"costs": {kind: asdict(cost) for kind, cost in newest}})


def _file() -> Path:
    return cache_folder() / "costs.json"
