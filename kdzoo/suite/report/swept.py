"""The sweep of a method over two axes of its settings: one row per setting, with the chosen one. Free of torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from kdzoo.errors import InputError, unknown
from kdzoo.suite.report.axes import setting_without, values_of
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.blocks import HEAD, Block
from kdzoo.suite.report.choice import choice_shares
from kdzoo.suite.report.selection import Candidate, candidates
from kdzoo.suite.report.settings import setting_text
from kdzoo.suite.report.surface import SurfaceCell

STRENGTHS = ("alpha", "dose", "weight", "coefficients")
"""axes that say how much a term counts: every run has the last of them, and a sweep is shown over the first that it varied"""

COLUMNS = (*HEAD, "method", "setting", "row_axis", "row", "column_axis", "column", "others", "metric", "n", "planned", "failed", "mean",
           "sd", "low", "high", "chosen", "like_chosen", "chosen_share")  # fmt: skip


@dataclass(frozen=True)
class Axes:
    """The axes of a grid; columns is None where one axis alone was varied."""

    rows: str
    columns: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.rows, self.columns)))


def parse_axes(text: str) -> Axes:
    """`temperature,alpha`, the axis of the rows first; raises InputError for anything but one or two different names."""
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(names) > 2 or len(set(names)) < len(names):
        raise InputError(f"axes: expected one axis, or two different ones with a comma between them, got {text!r}")
    return Axes(*names)


def swept_frame(bench: BenchRecords, method: str, axes: Axes | None = None) -> pd.DataFrame:
    """A row a setting of a method in each sweep of a bench: where it stands on two axes, its mean on validation and the spread over seeds.

    axes: None for those that were varied, the temperature first, then alpha, dose or weight, then fields of the method. row,
    column: the setting's values on them, empty where it has none. others: as JSON, values besides that not all settings
    share: settings with the same ones form a grid. metric: the task's headline on validation, on test where nothing was held
    out. chosen: whether the leaderboard shows this setting. like_chosen: whether the 95 % interval of the differences to it,
    seed by seed, includes 0. chosen_share: in which share of resamples of the seeds it would be chosen (`choice.choice_shares`).
    Raises InputError, with the nearest name, for a method without a sweep or for an axis that none
    of its runs has.
    """
    blocks = [block for block in bench.blocks if block.table_key.phase == "sweep"]
    methods = sorted({record.method for block in blocks for record in block.records})
    if method not in methods:
        raise InputError(unknown("surface", method, methods))
    of_method = [block for block in blocks if any(record.method == method for record in block.records)]
    rows = [row for block in of_method for row in _rows(block, method, axes)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"row": object, "column": object})


def _rows(block: Block, method: str, axes: Axes | None) -> Iterator[dict[str, Any]]:
    settings = candidates(record for record in block.records if record.method == method)
    axes = varied_axes(settings) if axes is None else _known(axes, settings)
    places = [_place(setting, axes) for setting in settings]
    others = _others(settings, axes)
    settings_at = Counter(zip(others, places, strict=True))
    part: Literal["val", "test"] = "val" if all(setting.validated for setting in settings) else "test"
    cells = [_cell(setting, part) for setting in settings]
    standing = [standing for standing in block.standings if standing.record.method == method]
    chosen = standing[0].record.setting_key if len(standing) == 1 else None
    shares = choice_shares(settings) if part == "val" else {}
    chosen_cell = next((cell for setting, cell in zip(settings, cells, strict=True) if setting.records[0].setting_key == chosen), None)
    for setting, place, other, cell in zip(settings, places, others, cells, strict=True):
        is_chosen = setting.records[0].setting_key == chosen
        row, column = place if settings_at[other, place] == 1 else (None, None)
        low, high = cell.interval if cell else (None, None)
        yield {
            **block.head,
            "method": method,
            "setting": setting_text(setting.records[0].run, setting.records[0].about),
            "row_axis": axes.rows,
            "row": row,
            "column_axis": axes.columns,
            "column": column,
            "others": other,
            "metric": f"{part}_{block.metric.name}",
            "n": len(setting.done),
            "planned": len(setting.records),
            "failed": sum(record.state == "failed" for record in setting.records),
            "mean": cell and cell.mean,
            "sd": cell and cell.sd,
            "low": low,
            "high": high,
            "chosen": is_chosen,
            "like_chosen": bool(cell and chosen_cell and not is_chosen and cell.is_like(chosen_cell)),
            "chosen_share": shares.get(setting.records[0].setting_key),
        }


def varied_axes(settings: Sequence[Candidate]) -> Axes:
    """The two axes that settings differ on most plainly; the temperature alone where they differ on none."""
    values = [values_of(setting.records[0]) for setting in settings]
    numbers = {name: {json.dumps(one[name]) for one in values if name in one} for name in {name: None for one in values for name in one}}
    whole = [name for name in STRENGTHS if len(numbers.get(name, ())) > 1 and all(name in one for one in values)]
    terms = settings[0].records[0].run.objective.terms
    fields = [key if len(terms) == 1 else f"{term.method}.{key}" for term in terms for key in term.hyperparameters]
    shared = ["temperature"] if all("temperature" in one for one in values) else []
    fields = [name for name in fields if not (shared and name.rpartition(".")[-1] == "temperature")]
    strength = whole[:1] if whole != ["coefficients"] else [name for name in STRENGTHS if len(numbers.get(name, ())) > 1][:1]
    varied = [name for name in [*shared, *strength, *fields] if len(numbers[name]) > 1]
    return Axes(*varied[:2]) if varied else Axes("temperature")


def _known(axes: Axes, settings: Iterable[Candidate]) -> Axes:
    """The axes, if runs of the method have them; raises InputError with the nearest name."""
    settings = list(settings)
    known = {name: None for setting in settings for name in values_of(setting.records[0])}
    method = settings[0].records[0].method
    if wrong := [unknown(f"axis of {method}", name, known) for name in axes.names if name not in known]:
        raise InputError(*wrong)
    return axes


def _place(setting: Candidate, axes: Axes) -> tuple[Any, Any]:
    """Where a setting stands on two axes; None for both where it has no place on one of them."""
    values = values_of(setting.records[0])
    if any(name not in values for name in axes.names):
        return None, None
    return values[axes.rows], "" if axes.columns is None else values[axes.columns]


def _others(settings: Sequence[Candidate], axes: Axes) -> list[str | None]:
    """What tells the grids of settings apart, as JSON: their values besides these axes, as far as not all of them share these."""
    besides = [setting_without(setting.records[0], axes.names) for setting in settings]
    names = {name: None for one in besides for name in one}
    differing = [name for name in names if len({json.dumps(one.get(name)) for one in besides}) > 1]
    return [json.dumps({name: one[name] for name in differing if name in one}) if differing else None for one in besides]


def _cell(setting: Candidate, part: Literal["val", "test"]) -> SurfaceCell | None:
    """A setting's values of the headline on one part of the data by seed; None where no run is done."""
    values = {record.run.seed: value for record in setting.done if (value := record.headline(part)) is not None}
    if not values:
        return None
    images = min(int(metrics["n"]) for record in setting.done if (metrics := record.last_epoch_metrics(part)) is not None)
    return SurfaceCell(values, 1 / images if setting.task.headline.per_sample else 0.0)


def others_words(others: str | None) -> str:
    """What a grid has besides its axes, in words: `nontarget_weight=2`; empty where all settings share it."""
    values: Mapping[str, Any] = json.loads(others) if isinstance(others, str) else {}
    return " ".join(f"{name}={value:g}" if isinstance(value, int | float) else f"{name}={value}" for name, value in values.items())
