"""A bench's rows beside published numbers, each with what differs between the two protocols."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.data.known import DATA, HALVED
from kdzoo.suite.report.blocks import Block, Standing, blocks_of
from kdzoo.suite.report.published import IMAGENET, Published
from kdzoo.suite.report.records import BenchRecords, Record, taught_on
from kdzoo.suite.report.selection import at_published_coefficients
from kdzoo.suite.report.stats import WELCH, independent_model, mean_interval, sample_sd
from kdzoo.suite.report.tables import interval_words, method_words, spread_words
from kdzoo.text import number_of

IMAGENET_CLASSES = 1000
TEACHERS_ALIKE = 0.5
"""points by which two teachers' accuracies may differ without a mark"""
BEST_EPOCH = "the published number is of the best epoch on the test set, ours of the last one"
WEIGHTS = "ours stands at other weights than the method was published with (column setting)"
SEPARATOR = "; "
"""between the differences of one row"""
DIFFERENCE = "ours - published"
HEAD = ("pair", "data", "recipe", "epochs", "phase")
COLUMNS = (
    "bench", *HEAD, "method", "setting", "ours top1", "ours sd", "ours n", "ours teacher top1",
    "published top1", "published sd", "published n", "published teacher top1", "published epochs", "published epoch",
    "table", "printed", "run_by", "source", DIFFERENCE, f"{DIFFERENCE} low", f"{DIFFERENCE} high", "differs",
)  # fmt: skip
"""accuracies and differences are shares"""


@dataclass(frozen=True)
class Beside:
    """frame: a row for every published number of a method of a bench, and one for each method without any. notes: in words."""

    frame: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Mark:
    """What differs between two protocols: a word for the kind of difference, and both sides."""

    word: str
    text: str

    def __str__(self) -> str:
        return f"{self.word}: {self.text}"


def beside(benches: Sequence[BenchRecords], rows: Sequence[Published]) -> Beside:
    """Join the chosen settings of benches with published numbers of the same pair, data set and method.

    A set at half the pixels (`cifar100_16`) is joined with its original, a folder of 1,000 classes with ImageNet; both
    are marked. The interval of a difference holds the spread of our seeds alone where the source gives none of its own.
    """
    found: list[dict[str, Any]] = []
    notes: list[str] = []
    for bench in benches:
        for block in blocks_of(bench):
            there = [row for row in rows if row.pair == block.place.pair and row.data == _original(block)]
            notes += _absent(block, there, rows)
            for standing in block.standings:
                theirs: list[Published | None] = [row for row in there if row.method == standing.record.method]
                for number in theirs or [None]:
                    if not standing.done:
                        continue
                    differs = () if number is None else marks_of(standing, number)
                    found.append({"bench": bench.name, **block.head, **_ours(standing), **_theirs(standing, number, differs)})
    return Beside(pd.DataFrame(found, columns=list(COLUMNS)), tuple(dict.fromkeys(notes)))


def _original(block: Block) -> str:
    """The published tables' name for a block's data set."""
    run = block.records[0].run
    if run.data.name == "folder" and run.data.classes == IMAGENET_CLASSES:
        return IMAGENET
    return HALVED.get(run.data.name, run.data.name)


def _absent(block: Block, there: Sequence[Published], rows: Iterable[Published]) -> list[str]:
    """What a reader would look for in vain: a pair without any number, and published methods that the bench has not run."""
    where = f"{block.place.pair} on {_original(block)}"
    if not there:
        others = dict.fromkeys(row.pair for row in rows if row.data == _original(block))
        known = f"; pairs with numbers: {', '.join(others)}" if others else ""
        return [f"no published numbers for {where}{known}"]
    ours = {standing.record.method for standing in block.standings if standing.done}
    missing = sorted({row.method for row in there} - ours)
    return [f"{where}: published, but not in this bench: {', '.join(map(method_words, missing))}"] if missing else []


def _ours(standing: Standing) -> dict[str, Any]:
    return {
        "method": standing.record.method,
        "setting": standing.setting or None,
        "ours top1": standing.mean_top1,
        "ours sd": sample_sd(list(standing.top1.values())),
        "ours n": len(standing.done),
        "ours teacher top1": _teacher_top1(standing),
    }


def _theirs(standing: Standing, number: Published | None, differs: Sequence[Mark]) -> dict[str, Any]:
    if number is None:
        return {}
    top1, sd = number.top1 / 100, None if number.sd is None else number.sd / 100
    low, high = difference_interval(list(standing.top1.values()), 1 / standing.images, top1, sd, number.seeds)
    return {
        "published top1": top1,
        "published sd": sd,
        "published n": number.seeds,
        "published teacher top1": None if number.teacher_top1 is None else number.teacher_top1 / 100,
        "published epochs": number.epochs,
        "published epoch": number.epoch,
        **{name: getattr(number, name) for name in ("table", "printed", "run_by", "source")},
        DIFFERENCE: standing.mean_top1 - top1,
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


def _teacher_top1(standing: Standing) -> float | None:
    found = [(record.result or {}).get("teacher") or {} for record in standing.done]
    known = [teacher["test"]["top1"] for teacher in found if teacher.get("test")]
    return float(np.mean(known)) if known else None


def marks_of(standing: Standing, number: Published) -> tuple[Mark, ...]:
    """What differs between the protocols of a row and of a published number, as far as both are known."""
    record = standing.record
    return tuple(
        mark
        for mark in (
            _pixels(record, number),
            _epochs(record, number),
            Mark("best epoch", BEST_EPOCH) if number.epoch == "best" else None,
            _images(record, number),
            _seeds(len(standing.done), number),
            _teacher(standing, number),
            None if at_published_coefficients(record) else Mark("weights", WEIGHTS),
            _hyperparameters(record),
            Mark("copied", f"{number.table} copied the number from an earlier table") if number.run_by == "copied" else None,
            Mark("unstated", f"{number.table} does not state {_listed(number.unstated)}") if number.unstated else None,
        )
        if mark is not None
    )


def _pixels(record: Record, number: Published) -> Mark | None:
    """Other images: a set at half its side, or a folder that may not be ImageNet."""
    ours, theirs = (known.shape if (known := DATA.find(name)) is not None else None for name in (record.run.data.name, number.data))
    if number.data == IMAGENET:
        return Mark("data", f"a folder of {IMAGENET_CLASSES:,} classes here, ImageNet there")
    if ours is None or theirs is None or ours == theirs:
        return None
    return Mark("pixels", f"{ours[1]}x{ours[2]} here, {theirs[1]}x{theirs[2]} there")


def _epochs(record: Record, number: Published) -> Mark | None:
    epochs = record.run.recipe.epochs
    return None if number.epochs in (None, epochs) else Mark("epochs", f"{epochs} here, {number.epochs} there")


def _images(record: Record, number: Published) -> Mark | None:
    """Other training images than the whole set, on which published numbers are trained."""
    data = record.run.data
    whole = known.train if (known := DATA.find(data.name)) is not None else None
    if data.transfer is not None:
        return Mark("images", f"taught on {taught_on(record)} here, on the whole training set there")
    if data.limit is None and not data.val_fraction and data.label_fraction == 1:
        return None
    share = (1 - data.val_fraction) * data.label_fraction
    if whole is None:
        return Mark("images", f"{100 * share:g} % of the training images here, all there")
    used = round((data.limit or whole) * share)
    return Mark("images", f"{used:,} training images here, {whole:,} there")


def _hyperparameters(record: Record) -> Mark | None:
    """Other temperatures, powers and so on than the methods declare, or than the recipe has for this pair."""
    methods = record.about.get("methods", {})
    others = [
        f"{term.method}.{name} {value:g} here, {declared:g} declared"
        if all(isinstance(one, int | float) and not isinstance(one, bool) for one in (value, declared))
        else f"{term.method}.{name} {value} here, {declared} declared"
        for term in record.run.objective.terms
        for name, value in term.hyperparameters.items()
        if value != (declared := methods.get(term.method, {}).get("declared", {}).get(name, value))
    ]
    return Mark("hyper-parameters", ", ".join(others)) if others else None


def _seeds(n: int, number: Published) -> Mark | None:
    sides = [*(["here"] if n == 1 else []), *(["there"] if number.seeds == 1 else [])]
    return Mark("one seed", f"{' and '.join(sides)}") if sides else None


def _teacher(standing: Standing, number: Published) -> Mark | None:
    ours = _teacher_top1(standing)
    if ours is None or number.teacher_top1 is None or abs(100 * ours - number.teacher_top1) <= TEACHERS_ALIKE:
        return None
    return Mark("teacher", f"{100 * ours:.2f} % here, {number.teacher_top1:.2f} % there")


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def beside_sections(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows for a reader: a table for every bench, pair, data set, recipe and phase that has a published number, with its title.

    Letters stand for what differs (`legend`).
    """
    letters = {mark: letter for letter, mark in legend(frame)}
    parts = []
    for _, rows in frame.groupby(["bench", *HEAD], dropna=False, sort=False):
        head = rows.iloc[0]
        if rows["published top1"].notna().any():
            recipe = f"{head['recipe']} ({number_of(int(head['epochs']), 'epoch')})"
            title = f"{head['bench']}: {head['pair']} on {head['data']}, {recipe}, {head['phase']}"
            parts.append((title, _shown(rows, letters)))
    return parts


def legend(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Every difference between protocols with the letter that stands for it, in the order of their kinds."""
    marks = sorted({mark for cell in frame["differs"].dropna() for mark in cell.split(SEPARATOR)})
    names = [*string.ascii_lowercase, *(f"{first}{second}" for first in string.ascii_lowercase for second in string.ascii_lowercase)]
    return list(zip(names, marks, strict=False))


def _shown(rows: pd.DataFrame, letters: Mapping[str, str]) -> pd.DataFrame:
    """Rows as text; our numbers stand once where a method has several published ones."""
    listed = [row for _, row in rows.iterrows()]
    again = [at > 0 and all(_same(row[key], listed[at - 1][key]) for key in ("method", "setting")) for at, row in enumerate(listed)]

    def once(cell: Callable[[pd.Series], str]) -> list[str]:
        return ["" if repeated else cell(row) for repeated, row in zip(again, listed, strict=True)]

    shown = {
        "method": once(lambda row: method_words(str(row["method"]))),
        "setting": once(lambda row: _word(row["setting"])),
        "n": once(lambda row: f"{row['ours n']:.0f}"),
        "ours": once(lambda row: spread_words(row["ours top1"], math.nan)),
        "sd": once(lambda row: spread_words(row["ours sd"], math.nan)),
        "published": [spread_words(row["published top1"], _float(row["published sd"])) for row in listed],
        DIFFERENCE: [interval_words(*(row[f"{DIFFERENCE}{part}"] for part in ("", " low", " high"))) for row in listed],
        "table": [_word(row["table"]) for row in listed],
        "differs": [_marked(row["differs"], letters) for row in listed],
    }
    return pd.DataFrame(shown, index=rows.index, dtype=object)


def _marked(differs: Any, letters: Mapping[str, str]) -> str:
    found = sorted(letters[mark] for mark in _word(differs).split(SEPARATOR) if mark)
    return ("" if all(len(letter) == 1 for letter in found) else " ").join(found)


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or bool(pd.isna(one) and pd.isna(other))


def _word(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _float(value: Any) -> float:
    return math.nan if pd.isna(value) else float(value)
