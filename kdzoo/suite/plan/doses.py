"""Doses: measured ratios of gradients, the file that keeps them, and the weights computed from them. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdzoo.errors import InputError
from kdzoo.files import read_file
from kdzoo.runs.locks import file_lock
from kdzoo.runs.sealed_json import parse_sealed, write_sealed_json
from kdzoo.runs.spec import Run
from kdzoo.runs.store import Store

NAME = "doses.json"
MEASURE_AGAIN = "delete it to have the doses measured again"


@dataclass(frozen=True)
class MeasuredRatio:
    """The ratio of one method's gradient to that of cross-entropy, and what it was measured on, for a reader.

    It belongs to a run: the method with factor 1 beside cross-entropy with factor 1, seed 0, whose id names it. label: what
    the run is called, which is another name where it starts from a pretrain stage.
    """

    label: str
    method: str
    hyperparameters: Mapping[str, Any]
    pair: str
    data: str
    recipe: str
    epochs: int
    ratio: float
    term_gradient: float
    task_gradient: float
    warm_up_steps: int
    batches: int

    def dose(self, weight: float, task: float) -> float | None:
        """The dose of a weight beside a factor on cross-entropy; None without cross-entropy."""
        return weight * self.ratio / task if task else None


@dataclass(frozen=True)
class Dose:
    """What is recorded beside a run of one of its terms: its dose, the ratio it comes from, and the id it was measured under."""

    dose: float
    ratio: float
    measured: str

    def record(self) -> dict[str, Any]:
        return asdict(self)


def weight_for(dose: float, ratio: float) -> float:
    """The weight that gives a term a dose beside cross-entropy with factor 1: d / r, to two significant digits.

    Raises InputError where that is not a positive number.
    """
    weight = two_digits(dose / ratio) if ratio > 0 else math.inf
    if not 0 < weight < math.inf:
        raise InputError(f"doses: the weight for the dose {dose:g} is not a usable number: the measured ratio is {ratio:g}")
    return weight


def two_digits(value: float) -> float:
    """A positive number rounded to two significant digits."""
    return float(f"{value:.1e}")


def read_doses(folder: Path) -> dict[str, MeasuredRatio]:
    """What was measured for a bench, by id; nothing where there is no file. Raises InputError for a damaged one."""
    file = folder / NAME
    try:
        content = parse_sealed(read_file(file), str(file))
        return {key: _measured_ratio(value) for key, value in content["doses"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except InputError as error:
        raise InputError(f"{error.problems[0]}; {MEASURE_AGAIN}") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{file}: damaged ({error}); {MEASURE_AGAIN}") from error


def _measured_ratio(value: Mapping[str, Any]) -> MeasuredRatio:
    measured = MeasuredRatio(**value)
    if not isinstance(measured.ratio, int | float) or not 0 < measured.ratio < math.inf:
        raise ValueError(f"ratio: expected a number > 0, got {measured.ratio!r}")
    return measured


def keep_doses(folder: Path, new: Mapping[str, MeasuredRatio]) -> dict[str, MeasuredRatio]:
    """Add measured ratios to a bench's file; returns all that it then holds. A ratio that it has already stays."""
    with file_lock(folder / f".{NAME}.lock"):
        doses = {**new, **read_doses(folder)}
        write_sealed_json(folder / NAME, {"doses": {key: asdict(one) for key, one in doses.items()}})
    return doses


def reused_doses(folder: str) -> dict[str, MeasuredRatio]:
    """What was measured for another bench, for `--doses-from`; raises InputError where its folder has none."""
    doses = read_doses(Path(folder).expanduser())
    if not doses:
        raise InputError(f"doses_from: {folder}: expected a bench's folder with a {NAME}")
    return doses


def recorded_doses(store: Store) -> dict[str, float]:
    """The ratios that the runs of a bench were planned with, by id: what is left where its doses.json is lost."""
    ratios: dict[str, float] = {}
    for run_id in store.ids():
        try:
            _, about = store.run(run_id).read_plan()
        except (InputError, TypeError, ValueError):  # reported by the table, and renamed when the run is planned again
            continue
        for entry in dict(about.get("doses") or {}).values():
            ratios.setdefault(str(entry["measured"]), float(entry["ratio"]))
    return ratios


def describe(run: Run, about: Mapping[str, Any], numbers: Mapping[str, Any]) -> MeasuredRatio:
    """The record of a measurement on a run."""
    (term,) = run.objective.terms
    return MeasuredRatio(
        label=run.objective.label,
        method=term.method,
        hyperparameters=term.hyperparameters,
        pair=str(about.get("pair") or run.student.name),
        data=run.data.name,
        recipe=str(about.get("recipe") or "-"),
        epochs=run.recipe.epochs,
        **numbers,
    )


def of_method(measurements: Iterable[MeasuredRatio], method: str) -> list[MeasuredRatio]:
    return sorted((one for one in measurements if one.method == method), key=lambda one: (one.pair, one.data, one.recipe, one.epochs))
