"""One or several benches as one page that needs nothing beside it: `build_page`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from kdzoo.errors import InputError
from kdzoo.suite.page.bundle import javascript
from kdzoo.suite.page.chart_kind import ChartKind
from kdzoo.suite.page.charts.marks import CONFIG
from kdzoo.suite.page.data import charts_as_data, in_html, packed
from kdzoo.suite.page.kinds import KINDS, Chart, charts_of
from kdzoo.suite.page.origins import Specifications, environment_rows, specifications
from kdzoo.suite.page.page_tables import PageTable, failure_table, leaderboard_tables, text_table
from kdzoo.suite.page.sentences import Answer, answers
from kdzoo.suite.page.tables import BenchTables, tables_of
from kdzoo.suite.report.compare import compare, distinct_names
from kdzoo.suite.report.comparison_text import comparison_sections
from kdzoo.suite.report.footnotes import footnotes
from kdzoo.suite.report.runs_table import runs_frame
from kdzoo.suite.report.sections import sections
from kdzoo.text import number_of
from kdzoo.version import VERSION

MOST_RUNS = 2000
"""number of runs up to which the page lists every one; of more, those of chosen settings and of the controls"""


@dataclass(frozen=True)
class Placed:
    """A chart with its number on the page."""

    number: int
    chart: Chart


@dataclass(frozen=True)
class BenchPart:
    """What the page says of one bench. name: which no other bench on it has; anchor: of its heading; charts, omissions: by kind."""

    name: str
    anchor: str
    tables: BenchTables
    answers: tuple[Answer, ...]
    leaderboards: tuple[PageTable, ...]
    notes: tuple[str, ...]
    charts: dict[ChartKind, list[Placed]]
    omissions: dict[ChartKind, tuple[str, ...]]
    failures: PageTable
    environment: PageTable
    specifications: Specifications
    listed: pd.DataFrame
    runs: str


def build_page(folders: Sequence[Path]) -> str:
    """The page of benches, as HTML; raises InputError for a folder that is no bench."""
    numbers = itertools.count()
    benches = [tables_of(folder) for folder in folders]
    names = distinct_names([tables.bench.name for tables in benches], folders)
    parts = [_part(at, name, tables, numbers) for at, (name, tables) in enumerate(zip(names, benches, strict=True))]
    placed = [one for part in parts for charts in part.charts.values() for one in charts]
    data = charts_as_data([one.chart for one in placed])
    for part in parts:
        data["frames"][f"{part.anchor}-runs"] = packed(part.listed)
        data["frames"][f"{part.anchor}-specifications"] = packed(part.specifications.runs)
    environment = Environment(
        loader=PackageLoader("kdzoo.suite.page", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["keep_units"] = lambda text: text.replace(" %", "\u00a0%")
    return environment.get_template("page.html").render(
        parts=parts,
        comparison=_comparison(folders) if len(folders) > 1 else None,
        data=in_html({**data, "config": CONFIG}),
        javascript=javascript(),
        version=VERSION,
    )


def _part(at: int, name: str, tables: BenchTables, numbers: Iterator[int]) -> BenchPart:
    bench = tables.bench
    anchor = f"bench-{at + 1}"
    charts = {kind: [Placed(next(numbers), _under(anchor, chart)) for chart in charts_of(kind, tables)] for kind in KINDS}
    frames = [frame for _, frame in sections(bench, tables.board)]
    rows, words = _listed_runs(tables)
    return BenchPart(
        name=name,
        anchor=anchor,
        tables=tables,
        answers=tuple(answers(tables)),
        leaderboards=tuple(leaderboard_tables(tables)),
        notes=(*footnotes(bench, tables.board, frames), *bench.portable_notes),
        charts=charts,
        omissions={kind: KINDS[kind].omissions(tables) for kind in KINDS},
        failures=failure_table(bench.records),
        environment=text_table("What the runs were trained with", environment_rows(bench)),
        specifications=specifications(bench, rows["id"]),
        listed=rows,
        runs=words,
    )


def _under(anchor: str, chart: Chart) -> Chart:
    """The chart with its data under a name that no other bench has."""
    return replace(chart, data=f"{anchor}-{chart.data}")


def _listed_runs(tables: BenchTables) -> tuple[pd.DataFrame, str]:
    """The rows of runs.csv that the page has, and which they are, in words."""
    count = len(tables.bench.records)
    if count <= MOST_RUNS:
        return runs_frame(tables.bench), f"All {number_of(count, 'run')}, as in runs.csv"
    chosen = {record.id for block in tables.bench.blocks for standing in block.standings for record in standing.candidate.records}
    rows = runs_frame(tables.bench, chosen).head(MOST_RUNS)
    return rows, f"{number_of(len(rows), 'run')} of chosen settings and controls, of {count:,} in runs.csv"


def _comparison(folders: Sequence[Path]) -> dict[str, Any]:
    """The benches beside each other, or why they cannot stand there."""
    try:
        joined = compare(folders)
    except InputError as error:
        return {"tables": (), "warnings": error.problems}
    parts = comparison_sections(joined.frame, joined.names, joined.task.headline)
    shared = [(title, frame) for title, frame in parts if _is_shared(frame, joined.names)]
    return {"tables": [text_table(title or "Side by side", _filled(frame)) for title, frame in shared], "warnings": joined.warnings}


def _is_shared(frame: pd.DataFrame, names: Sequence[str]) -> bool:
    """Whether more than one bench has a row in a table of a comparison: what one has alone stands in its leaderboard."""
    return sum(bool(frame[name].any()) for name in names) > 1


def _filled(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[[name for name in frame.columns if name == "method" or frame[name].any()]]
