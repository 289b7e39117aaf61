"""A table of numbers as plain text, CSV, Markdown, LaTeX or JSON."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.errors import InputError, unknown
from kdzoo.suite.report.markdown import markdown_table
from kdzoo.suite.report.table_files import as_csv
from kdzoo.tasks.task import Task
from kdzoo.text import format_number

FORMATS = ("table", "csv", "md", "latex", "json")


def render(frame: pd.DataFrame, how: str, task: Task) -> str:
    """A frame as table (plain text), csv, md, latex or json; raises InputError with the known formats.

    csv and json hold the numbers as they are, the others text for a reader, shares in per cent. task: that of the rows.
    """
    if how == "csv":
        return as_csv(frame).decode()
    if how == "json":
        return json.dumps(json.loads(_with_integers(frame).to_json(orient="records", double_precision=15)), indent=1, ensure_ascii=False)
    text = words(frame, task)
    if how == "table":
        return str(text.to_string(index=False))
    if how == "md":
        return "\n".join(markdown_table(text))
    if how == "latex":
        return _latex(text)
    raise InputError(unknown("format", how, FORMATS))


COUNTED = re.compile(r"(^|[ _])(n|seed|seeds|epochs?|rank|planned|failed|tried|views|passes|macs|parameters|bytes|samples|threads|pairs)$")
"""columns that count something: a column with a missing value holds floats, which a reader of JSON should not see"""


def _with_integers(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with integers in the columns that count, as far as they hold whole numbers (a median may not)."""
    counts = [name for name in frame.columns if COUNTED.search(str(name)) and pd.api.types.is_numeric_dtype(frame[name])]
    whole = [name for name in counts if (frame[name].dropna() % 1 == 0).all()]
    return frame.astype(dict.fromkeys(whole, "Int64"))


OF_HEADLINE = re.compile(r" sd$|_sd$| - .*?( low| high)?$|^vs_|detectable")
"""columns in the unit of the headline, whatever that is"""


DIFFERENCES = re.compile(r" - |^vs_")
"""columns of differences, which show their sign"""


def words(frame: pd.DataFrame, task: Task) -> pd.DataFrame:
    """The frame as text for a reader, shares in per cent. task: that of the rows."""
    text = frame.copy().astype(object)
    shares = re.compile("|".join([*(metric.name for metric in task.metrics if metric.unit == "share"), "gap_closed"]))
    for column in map(str, frame.columns):
        in_shares = shares.search(column) or (task.headline.unit == "share" and OF_HEADLINE.search(column))
        share = bool(in_shares) and not column.endswith((" p", " test"))
        sign = "+" if share and DIFFERENCES.search(column) else ""
        text[column] = [cell_text(value, share, sign) for value in frame[column]]
    return text


def cell_text(value: Any, share: bool, sign: str = "") -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float | int | np.number) and not isinstance(value, bool):
        return format_number(100 * float(value), f"{sign}.2f") if share else format_number(float(value), ".4g")
    return str(value)


def _latex(shown: pd.DataFrame) -> str:
    """A table with the rules of booktabs; columns of numbers are aligned to the right."""
    names = list(map(str, shown.columns))
    aligned = "".join("r" if _holds_numbers(shown[name]) else "l" for name in shown.columns)
    head, *body = [" & ".join(map(_tex, cells)) + r" \\" for cells in (names, *shown.itertuples(index=False))]
    opening = [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{{aligned}}}"]
    return "\n".join([*opening, r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"])


def _holds_numbers(column: pd.Series) -> bool:
    cells = [cell for cell in map(str, column) if cell]
    return bool(cells) and all(NUMBER.match(cell) for cell in cells)


NUMBER = re.compile(r"[-+<\[]*\d")
"""how a cell begins that holds a number"""
MINUS = re.compile(r"(?<![\w.)])-(?=\.?\d)")
TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": "$<$", ">": "$>$"} | {
    sign: rf"\{sign}" for sign in "&%$#_{}"
}
FIRST = re.compile(r"^[\[*]")
"""what the end of the line before would take for its own where a cell begins with it"""


def _tex(text: object) -> str:
    escaped = "".join(TEX.get(sign, sign) for sign in str(text))
    return MINUS.sub("$-$", FIRST.sub(r"{\g<0>}", escaped))
