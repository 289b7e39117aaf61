"""What runs cost on this machine: kept in the cache folder when runs finish, read by estimates. Free of torch.

A kind of run is everything that decides what a training image costs, but for the data and the length of the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kdzoo.errors import InputError
from kdzoo.files import cache_folder
from kdzoo.runs.canonical import canonical_json
from kdzoo.runs.locks import file_lock
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.sealed_json import read_sealed_json, write_sealed_json
from kdzoo.runs.spec import NetworkSpec, Run

LARGEST_RECORD = 2000
"""kinds of runs in the record; the oldest go first"""


@dataclass(frozen=True)
class Work:
    """What a run computes, in images: those that it is trained on, epoch by epoch, and those that it is evaluated on."""

    trained: float
    evaluated: float

    @staticmethod
    def of(batch_size: int, steps: int, epochs: int, validation: int, test: int) -> Work:
        """Of `steps` of a batch, with validation after each of `epochs` and once more at the end, and with the tests at the end."""
        tests = 2 if validation else 1  # of the last epoch, and of the best where one is chosen
        return Work(steps * batch_size, (epochs + 1) * validation + tests * test)


@dataclass(frozen=True)
class RunCost:
    """Seconds of a run: before its first step, for each image that it is trained on, and for each that it is evaluated on.

    They are processor time divided by the threads, on a GPU time by the clock, and include the run's share of what it has in
    common with others that train in lockstep.
    """

    setup: float
    image: float
    evaluated: float

    def seconds(self, work: Work) -> float:
        """What a run with so much work takes."""
        return self.setup + self.image * work.trained + self.evaluated * work.evaluated


NAMES = tuple(field.name for field in fields(RunCost))


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


def read_costs() -> dict[str, RunCost]:
    """The recorded costs of kinds of runs on this machine; empty where none has finished or the record is damaged."""
    try:
        content = read_sealed_json(_file())
        return {str(kind): RunCost(**{name: float(cost[name]) for name in NAMES}) for kind, cost in content["costs"].items()}
    except (InputError, ValueError, TypeError, KeyError, AttributeError):  # it only makes estimates better, and fills again
        return {}


def keep_costs(costs: Mapping[str, RunCost]) -> None:
    """Add costs to the record, in the place of older ones of the same kind. Raises StoreError where it cannot be written."""
    file = _file()
    with file_lock(file.with_suffix(".lock")):
        rest = {kind: cost for kind, cost in read_costs().items() if kind not in costs}
        newest = list({**rest, **costs}.items())[-LARGEST_RECORD:]
        write_sealed_json(file, {"costs": {kind: asdict(cost) for kind, cost in newest}})


def _file() -> Path:
    return cache_folder() / "costs.json"
