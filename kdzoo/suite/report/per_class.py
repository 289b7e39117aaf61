"""Errors class by class: one row per method, class and table, from the counts that every run's result has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.errors import InputError
from kdzoo.runs.about import class_names
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.blocks import HEAD, TEACHER, Block
from kdzoo.suite.report.cells import method_words
from kdzoo.suite.report.records import Record

COLUMNS = (*HEAD, "method", "setting", "n", "class", "images", "errors", "accuracy")
OWN = ("method", "setting", "n", "all")
"""the headings that stand before the classes in a table for a reader"""


def per_class_frame(bench: BenchRecords) -> pd.DataFrame:
    """Test errors of the last epoch by class, for every method at its chosen setting and for the teacher.

    images: of the class in the test set. errors: how many of them a run names wrongly, the mean over the n runs that have
    counted them. accuracy: the share that is named rightly. Raises InputError where no run has counted.
    """
    rows = [row for block in bench.blocks for row in _rows(block)]
    if not rows:
        raise InputError(
            f"per_class: no finished run in {bench.folder} has errors per class; runs of earlier versions of kdzoo did not count them"
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(block: Block) -> list[dict[str, Any]]:
    records = [record for record in block.records if record.result]
    classes = block.records[0].run.data.classes
    names = next((names for record in records if (names := class_names(record.about, classes))), None) or list(map(str, range(classes)))
    teachers = [teacher["test"] for record in records if (teacher := (record.result or {}).get("teacher")) and teacher["test"]]
    tests_of = [(TEACHER, "", teachers[:1])]
    tests_of += [
        (standing.record.method, standing.setting, [tested for record in standing.done if (tested := _tested(record))])
        for standing in block.standings
    ]
    return [
        {**block.head, "method": method, "setting": setting, **row}
        for method, setting, tests in tests_of
        for row in _by_class([test for test in tests if _has_counted(test, classes)], names)
    ]


def _has_counted(test: Mapping[str, Any], classes: int) -> bool:
    return all(len(test.get(name) or ()) == classes for name in ("errors_per_class", "images_per_class"))


def _tested(record: Record) -> Mapping[str, Any]:
    """The metrics of a finished run's last epoch on the test set."""
    return record.last_epoch_metrics("test") or {}


def _by_class(tests: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Iterable[dict[str, Any]]:
    """A row a class, over so many runs; none where no run has counted."""
    if not tests:
        return []
    images = tests[0]["images_per_class"]
    errors = np.mean([test["errors_per_class"] for test in tests], axis=0)
    return [
        {
            "n": len(tests),
            "class": name,
            "images": count,
            "errors": float(wrong),
            "accuracy": 1 - float(wrong) / count if count else None,
        }
        for name, count, wrong in zip(names, images, errors, strict=True)
    ]


def per_class_sections(bench: BenchRecords, frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The same for a reader: for every table one row per method, one column per class, and first how many images there are.

    frame: all or some rows of `per_class_frame`, in any order. Methods stand in the order of their first row, classes in
    the data set's; the cell of a row that is not there is empty. The column `all` counts every class, also those not shown.
    """
    sections = []
    for block in bench.blocks:
        rows = block.rows_of(frame)
        if len(rows):
            sections.append((f"Test errors per class, mean over the seeds: {block.title}", _table(rows, pd.DataFrame(_rows(block)))))
    return sections


def _table(rows: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """The rows to show of one table as text. whole: every row of that table, in the order of the classes."""
    present = set(rows["class"])
    images = whole.drop_duplicates("class").set_index("class")["images"]
    order = [name for name in images.index if name in present]
    totals = whole.groupby(["method", "setting"])["errors"].sum()
    lines = [["images", "", "", str(images.sum()), *map(str, images[order])]]
    for _, group in rows.groupby(["method", "setting"], sort=False):
        method, setting, count = (str(group[name].iloc[0]) for name in ("method", "setting", "n"))
        wrong = ["" if pd.isna(errors) else f"{errors:.1f}" for errors in group.set_index("class")["errors"].reindex(order)]
        lines.append([method_words(method), setting, count, f"{totals[method, setting]:.1f}", *wrong])
    classes = [f"class {name}" if name in OWN else str(name) for name in order]
    table = pd.DataFrame(lines, columns=[*OWN, *classes], dtype=object)
    return table if table["setting"].any() else table.drop(columns="setting")
