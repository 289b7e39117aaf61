"""A bench's rows beside published numbers, for a reader."""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from kdzoo.suite.report.beside import DIFFERENCE, HEAD, SEPARATOR
from kdzoo.suite.report.cells import interval_words, method_words, spread_words
from kdzoo.suite.report.published import HEADLINE, TASK
from kdzoo.text import number_of


def beside_sections(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows for a reader: a table for every bench, pair, data set, recipe and phase that has a published number, with its title.

    Letters stand for what differs (`legend`).
    """
    letters = {mark: letter for letter, mark in legend(frame)}
    parts = []
    for _, rows in frame.groupby(["bench", *HEAD], dropna=False, sort=False):
        head = rows.iloc[0]
        if rows[f"published {HEADLINE}"].notna().any():
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
    series = [row for _, row in rows.iterrows()]
    again = [at > 0 and all(_same(row[key], series[at - 1][key]) for key in ("method", "setting")) for at, row in enumerate(series)]

    def once(cell: Callable[[pd.Series], str]) -> list[str]:
        return ["" if is_again else cell(row) for is_again, row in zip(again, series, strict=True)]

    cells = {
        "method": once(lambda row: method_words(str(row["method"]))),
        "setting": once(lambda row: _word(row["setting"])),
        "n": once(lambda row: f"{row['ours n']:.0f}"),
        "ours": once(lambda row: spread_words(row[f"ours {HEADLINE}"], math.nan, TASK.headline)),
        "sd": once(lambda row: spread_words(row["ours sd"], math.nan, TASK.headline)),
        "published": [spread_words(row[f"published {HEADLINE}"], _float(row["published sd"]), TASK.headline) for row in series],
        DIFFERENCE: [interval_words(row[DIFFERENCE], row[f"{DIFFERENCE} low"], row[f"{DIFFERENCE} high"], TASK.headline) for row in series],
        "table": [_word(row["table"]) for row in series],
        "differs": [_marked(row["differs"], letters) for row in series],
    }
    return pd.DataFrame(cells, index=rows.index, dtype=object)


def _marked(differs: Any, letters: Mapping[str, str]) -> str:
    marks = sorted(letters[mark] for mark in _word(differs).split(SEPARATOR) if mark)
    return ("" if all(len(letter) == 1 for letter in marks) else " ").join(marks)


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) or bool(pd.isna(one) and pd.isna(other))


def _word(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _float(value: Any) -> float:
    return math.nan if pd.isna(value) else float(value)
