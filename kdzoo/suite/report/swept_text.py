"""The sweep of a method for a reader: grids of text, and below them what the marks mean and what is no grid."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from kdzoo.suite.report.axes import in_order, value_words
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.blocks import Block
from kdzoo.suite.report.cells import method_words, spread_words
from kdzoo.suite.report.selection import rule_words
from kdzoo.suite.report.swept import others_words
from kdzoo.tasks.task import Metric
from kdzoo.text import number_of

CHOSEN, LIKE_CHOSEN = "*", "~"
"""what stands before the chosen cell, and before those that are not told apart from it"""


@dataclass(frozen=True)
class Grid:
    """A grid of text below its title, or where there is none a list of settings, with what has to be said of it."""

    title: str
    cells: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def label(self) -> str:
        """The heading of the column that names its rows."""
        return str(self.cells.columns[0])


def swept_grids(bench: BenchRecords, frame: pd.DataFrame) -> list[Grid]:
    """Grids of the mean on validation ± the standard deviation over seeds, for every sweep of a bench.

    frame: all or some rows of `swept.swept_frame`. A grid has two settings or more; what stands apart from every grid is named
    below the last one of its sweep.
    """
    grids: list[Grid] = []
    for block in bench.blocks:
        rows = block.rows_of(frame)
        if rows.empty:
            continue
        groups = [group for _, group in rows.groupby("others", sort=False, dropna=False)]
        whole = [group for group in groups if group["row"].notna().sum() > 1]
        of_block = [_grid(block, group[group["row"].notna()]) for group in whole]
        on_grids = {index for group in whole for index in group.index[group["row"].notna()]}
        grids += _with_notes(block, of_block, rows, rows[[index not in on_grids for index in rows.index]])
    return grids


def _grid(block: Block, group: pd.DataFrame) -> Grid:
    first = group.iloc[0]
    columns = sorted(set(group["column"]), key=in_order)
    one_axis = pd.isna(first["column_axis"])
    headings = [_subject(block, group)] if one_axis else list(map(value_words, columns))
    label = str(first["row_axis"]) if one_axis else f"{first['row_axis']} / {first['column_axis']}"
    text_at = {(row["row"], row["column"]): _cell_text(row, block.metric) for _, row in group.iterrows()}
    values = sorted(set(group["row"]), key=in_order)
    lines = [[value_words(value), *(text_at.get((value, column), "") for column in columns)] for value in values]
    cells = pd.DataFrame(lines, columns=[label, *headings], dtype=object)
    besides = f" at {others_words(first['others'])}" if others_words(first["others"]) else ""
    missing = len(values) * len(columns) - len(text_at)
    cells_in_all = number_of(len(values) * len(columns), "cell")
    untried = (
        f"{missing} of {cells_in_all} was not tried and is empty."
        if missing == 1
        else f"{missing} of {cells_in_all} were not tried and are empty."
    )
    notes = [untried] if missing else []
    notes += [f"One axis, {first['row_axis']}: no grid."] if one_axis else []
    return Grid(f"{method_words(first['method'])}{besides}: {block.title}", cells, tuple(notes))


def _cell_text(row: pd.Series, metric: Metric) -> str:
    """`* 97.10 ± 0.22`, with its seeds where some are missing; `failed` or `to do` where no run is done."""
    if row["n"] == 0:
        return "failed" if row["failed"] else "to do"
    mark = f"{CHOSEN} " if row["chosen"] else f"{LIKE_CHOSEN} " if row["like_chosen"] else ""
    few = [] if row["n"] == row["planned"] else [f"n = {row['n']}"]
    few += [f"{row['failed']} failed"] if row["failed"] else []
    return " ".join([f"{mark}{spread_words(row['mean'], row['sd'], metric)}", *([f"({', '.join(few)})"] if few else [])])


def _with_notes(block: Block, grids: list[Grid], rows: pd.DataFrame, apart: pd.DataFrame) -> list[Grid]:
    """The grids of a sweep, the last one with what holds for all of them; a list of the settings where there is no grid."""
    meaning, settings = _meaning(block, rows), _settings(block, apart)
    if not grids:
        title = f"{method_words(rows.iloc[0]['method'])}, tried at {number_of(len(rows), 'setting')}: {block.title}"
        return [Grid(title, settings, ("No grid.", meaning))]
    *others, last = grids
    of_none = "; ".join(f"{setting}: {value}" for setting, value in settings.itertuples(index=False))
    return [*others, Grid(last.title, last.cells, (*last.notes, meaning, *([f"On none of the grids: {of_none}."] if of_none else [])))]


def _settings(block: Block, rows: pd.DataFrame) -> pd.DataFrame:
    """Settings below each other, each with its value."""
    lines = [[row["setting"] or "as published", _cell_text(row, block.metric)] for _, row in rows.iterrows()]
    return pd.DataFrame(lines, columns=["setting", _subject(block, rows) if len(rows) else "value"], dtype=object)


def _meaning(block: Block, rows: pd.DataFrame) -> str:
    """What cells and marks are, with the chosen setting."""
    seeds = sorted(set(rows["n"]) - {0})
    if not seeds:
        return "No run is done."
    subject = _subject(block, rows)
    spread = f"mean ± standard deviation over {number_of(seeds[-1], 'seed')}" if seeds[-1] > 1 else "one seed"
    words = [f"{subject[0].upper()}{subject[1:]} of the last epoch, {spread}."]
    chosen = rows[rows["chosen"]]
    if rows.iloc[0]["metric"].startswith("test_"):
        words.append("Nothing was held out, so these are test images, which choose nothing.")
    elif len(chosen):
        setting = chosen.iloc[0]["setting"] or "as published"
        words.append(f"{CHOSEN} chosen: {setting} ({rule_words(block.records[0].task)}).")
    if rows["like_chosen"].any():
        words.append(f"{LIKE_CHOSEN} not told apart from it: the 95 % interval of the differences, seed by seed, includes 0.")
    if seeds[-1] == 1:
        words.append("Nothing is known of how far cells are apart by chance.")
    return " ".join(words)


def _subject(block: Block, rows: pd.DataFrame) -> str:
    part = "test" if rows.iloc[0]["metric"].startswith("test_") else "validation"
    return f"{part} {block.metric.phrase}"
