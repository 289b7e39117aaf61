"""What a table says nothing of, in words: methods, settings, seeds and networks that were not tried."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import pandas as pd

from kdzoo.contract.catalogue import own_methods
from kdzoo.suite.page.tables import BenchTables
from kdzoo.suite.plan.config import NONE
from kdzoo.suite.report.blocks import Block
from kdzoo.suite.report.records import Record
from kdzoo.suite.report.settings import AXIS_WORDS
from kdzoo.text import number_of

MOST_NAMED = 6
"""number of methods that a sentence names"""
MOST_EDGES = 3
"""number of edges that a sentence names, each with its value"""


def not_tried(block: Block, tables: BenchTables) -> str:
    """Other methods, more settings, what lies beyond the edge of a sweep, fresh seeds, another pair of networks."""
    phases = {other.table_key.phase for other in tables.bench.blocks}
    pairs = {other.table_key.pair for other in tables.bench.blocks}
    words = [*_methods(tables.bench.records), *_single_settings(block), *in_brief(list(edges(block.rows_of(tables.sweeps))))]
    words += ["a refit of the chosen settings with fresh seeds"] if "refit" not in phases else []
    words += ["another pair of networks"] if len(pairs) == 1 else []
    return "; ".join(words) + "." if words else ""


def _methods(records: Iterable[Record]) -> list[str]:
    tried = {name for record in records for name in (record.method, *(term.method for term in record.run.objective.all_terms))}
    untried = sorted(set(own_methods()) - tried)
    return [f"{number_of(len(untried), 'method')} of the zoo ({_named(untried)})"] if untried else []


def _single_settings(block: Block) -> list[str]:
    single = sorted({standing.record.method for standing in block.standings if standing.tried == 1} - {NONE})
    return [f"more than one setting of {_named(single)}"] if single else []


def _named(methods: Sequence[str]) -> str:
    return ", ".join([*methods[:MOST_NAMED], *(["..."] if len(methods) > MOST_NAMED else [])])


def in_brief(found: Sequence[str]) -> list[str]:
    """A few edges as they are; of many their number and examples."""
    if len(found) <= MOST_EDGES:
        return list(found)
    examples = ", ".join(edge.partition(",")[0] for edge in found[:MOST_EDGES])
    return [f"values beyond the edge of the sweep, at which {len(found)} settings were chosen ({examples}, ...)"]


def edges(sweeps: pd.DataFrame) -> Iterable[str]:
    """Axes on which the chosen setting is the largest or the smallest value tried, so that a better one may lie beyond.

    sweeps: rows of `sweeps.sweep_frame`.
    """
    for _, rows in sweeps.groupby("sweep", sort=False):
        yield from _edge(rows, "row")
        yield from _edge(rows, "column")


def _edge(rows: pd.DataFrame, along: Literal["column", "row"]) -> list[str]:
    """The edge of one axis on which the chosen cell lies, in words; none where it lies inside, or where fewer than three values stand."""
    values, axis = pd.to_numeric(rows[along], errors="coerce"), rows[f"{along}_axis"].iloc[0]
    chosen = values[rows["chosen"].astype(bool)]
    if pd.isna(axis) or values.isna().any() or values.nunique() < 3 or chosen.empty:
        return []
    sides = {"above": values.max(), "below": values.min()}
    if axis == "alpha":
        sides = {word: edge for word, edge in sides.items() if 0 < edge < 1}  # there is nothing beyond its bounds
    method, name, value = rows["method"].iloc[0], AXIS_WORDS.get(axis, axis), chosen.iloc[0]
    return [f"{method} with {name} {word} {value:g}, the edge at which it was chosen" for word, edge in sides.items() if value == edge]
