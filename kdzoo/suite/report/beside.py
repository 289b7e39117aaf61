"""A bench's rows beside published numbers, each with what differs between the two protocols."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.data.known import HALVED
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.blocks import Block, Standing
from kdzoo.suite.report.cells import method_words
from kdzoo.suite.report.compare import distinct_names
from kdzoo.suite.report.error_model import WELCH, independent_model, sample_sd
from kdzoo.suite.report.intervals import mean_interval
from kdzoo.suite.report.marks import IMAGENET_CLASSES, Mark, marks_of, teacher_mean
from kdzoo.suite.report.published import HEADLINE, IMAGENET, TASK, Published

SEPARATOR = "; "
"""between the differences of one row"""


DIFFERENCE = "ours - published"


HEAD = ("pair", "data", "recipe", "epochs", "phase")


COLUMNS = (
    "bench", *HEAD, "method", "setting", f"ours {HEADLINE}", "ours sd", "ours n", f"ours teacher {HEADLINE}",
    f"published {HEADLINE}", "published sd", "published n", f"published teacher {HEADLINE}", "published epochs", "published epoch",
    "table", "printed", "run_by", "source", DIFFERENCE, f"{DIFFERENCE} low", f"{DIFFERENCE} high", "differs",
)  # fmt: skip
"""values and differences are in the headline's own unit, so that accuracies are shares"""


@dataclass(frozen=True)
class Beside:
    """frame: a row for every published number of a method of a bench, and one for each method without any. notes: in words."""

    frame: pd.DataFrame
    notes: tuple[str, ...]


def beside(benches: Sequence[BenchRecords], rows: Sequence[Published]) -> Beside:
    """Join the chosen settings of benches with published numbers of the same pair, data set and method.

    A bench of another task than that of the published tables has no row, and a note says so.
    A set at half the pixels (`cifar100_16`) is joined with its original, a folder of 1,000 classes with ImageNet; both
    are marked. The interval of a difference holds the spread of our seeds alone where the source gives none of its own.
    """
    joined: list[dict[str, Any]] = []
    notes: list[str] = []
    names = distinct_names([bench.name for bench in benches], [bench.folder for bench in benches])
    for name, bench in zip(names, benches, strict=True):
        if bench.task is not TASK:
            notes.append(f"no published numbers for {name}: it is of {bench.task.name}, they are of {TASK.name}")
            continue
        for block in bench.blocks:
            published_there = [row for row in rows if row.pair == _pair_of(block) and row.data == _original(block)]
            notes += _absent(block, published_there, rows)
            for standing in block.standings:
                theirs: list[Published | None] = [row for row in published_there if row.method == standing.record.method]
                for number in theirs or [None]:
                    if not standing.done:
                        continue
                    differs = () if number is None else marks_of(standing, number)
                    joined.append({"bench": name, **block.head, **_ours(standing), **_theirs(standing, number, differs)})
    return Beside(pd.DataFrame(joined, columns=list(COLUMNS)), tuple(dict.fromkeys(notes)))


def _pair_of(block: Block) -> str:
    """A block's pair by its architectures: without timm's tags, which say whose weights they have (`resnet34.tv_in1k`)."""
    return "/".join(name.partition(".")[0] for name in block.table_key.pair.split("/"))


def _original(block: Block) -> str:
    """The published tables' name for a block's data set."""
    run = block.records[0].run
    if run.data.name == "folder" and run.data.classes == IMAGENET_CLASSES:
        return IMAGENET
    return HALVED.get(run.data.name, run.data.name)


def _absent(block: Block, published_there: Sequence[Published], rows: Iterable[Published]) -> list[str]:
    """What a reader would look for in vain: a pair without any number, and published methods that the bench has not run."""
    where = f"{_pair_of(block)} on {_original(block)}"
    if not published_there:
        others = dict.fromkeys(row.pair for row in rows if row.data == _original(block))
        known = f"; pairs with numbers: {', '.join(others)}" if others else ""
        return [f"no published numbers for {where}{known}"]
    ours = {standing.record.method for standing in block.standings if standing.done}
    missing = sorted({row.method for row in published_there} - ours)
    return [f"{where}: published, but not in this bench: {', '.join(map(method_words, missing))}"] if missing else []


def _ours(standing: Standing) -> dict[str, Any]:
    return {
        "method": standing.record.method,
        "setting": standing.setting or None,
        f"ours {HEADLINE}": standing.mean,
        "ours sd": sample_sd(list(standing.values.values())),
        "ours n": len(standing.done),
        f"ours teacher {HEADLINE}": teacher_mean(standing),
    }


def _theirs(standing: Standing, number: Published | None, differs: Sequence[Mark]) -> dict[str, Any]:
    if number is None:
        return {}
    factor = TASK.headline.factor
    value, sd = number.value / factor, None if number.sd is None else number.sd / factor
    low, high = difference_interval(list(standing.values.values()), standing.resolution, value, sd, number.seeds)
    return {
        f"published {HEADLINE}": value,
        "published sd": sd,
        "published n": number.seeds,
        f"published teacher {HEADLINE}": None if number.teacher is None else number.teacher / factor,
        "published epochs": number.epochs,
        "published epoch": number.epoch,
        **{name: getattr(number, name) for name in ("table", "printed", "run_by", "source")},
        DIFFERENCE: standing.mean - value,
        f"{DIFFERENCE} low": low,
        f"{DIFFERENCE} high": high,
        "differs": SEPARATOR.join(map(str, differs)) or None,
    }


def difference_interval(
    values: Sequence[float], resolution: float, number: float, sd: float | None = None, seeds: int | None = None
) -> tuple[float, float]:
    """The 95 % interval of the mean of `values` minus a published number; NaN for one value.

    With the number's own spread and seeds it is Welch's; without, the number enters as if it were exact.
    """
    if sd is None or seeds is None or seeds < 2 or len(values) < 2:
        low, high = mean_interval(values, resolution)
        return low - number, high - number
    means, sds = np.array([number, np.mean(values)]), np.array([sd, sample_sd(values)])
    bounds = independent_model(means, sds**2, np.array([seeds, len(values)]), resolution, WELCH).against(0).interval()
    return float(bounds[0][1]), float(bounds[1][1])
