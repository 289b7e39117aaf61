"""The table of a race: every method with its runs so far, what was decided, its price and published numbers. Free of torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.errors import InputError
from kdzoo.suite.plan.config import KD, NONE, BenchConfig
from kdzoo.suite.plan.race import Race
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.blocks import TEACHER, Block
from kdzoo.suite.report.cells import method_words, setting_words
from kdzoo.suite.report.comparisons import comparisons
from kdzoo.suite.report.intervals import mean_interval
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.suite.report.markdown import markdown_table
from kdzoo.suite.report.race import REFIT, Decision, decide, of_race
from kdzoo.suite.report.records import Record
from kdzoo.suite.study.published_gains import known_gains
from kdzoo.suite.study.race_text import meanings, race_frame, race_words
from kdzoo.suite.study.stages import planned_bench
from kdzoo.suite.study.study import Study
from kdzoo.tasks.task import Metric
from kdzoo.text import markdown_text, number_of

TRUSTED = 0.0035
"""a row is trusted where the difference to tuned KD that it would probably detect is at most this share of the test images"""


IN_UNIT = re.compile(r"(test_|vs_|added_vs_|detectable).*|mean|sd|low|high")
"""the columns in the headline's unit: results.csv has them as a reader reads them, shares in per cent"""


NUMBERS = (
    "vs_kd", "vs_kd_low", "vs_kd_high", "p_vs_kd", "vs_kd_all_low", "vs_kd_all_high", "p_vs_kd_all", "vs_alone",
    "vs_alone_low", "vs_alone_high", "detectable", "dose", "coefficient", "temperature", "alpha", "settings_tried", "student_passes",
    "backward_passes", "teacher_passes", "macs_ratio", "time_ratio", "collapsed",
)  # fmt: skip
"""columns of a leaderboard that a row of the table has too, besides the headline and its spread"""


@dataclass(frozen=True)
class RaceTable:
    """One race as numbers (frame) and as text (shown, by pair), with what is missing and the decisions."""

    stage: str
    race: Race
    headline: Metric
    frame: pd.DataFrame
    shown: tuple[tuple[str, pd.DataFrame], ...]
    missing: tuple[str, ...]
    decisions: tuple[Decision, ...]
    cost: str

    def lines(self) -> list[str]:
        """Its part of a study's README, below a heading."""
        lines = [f"Missing: {'; '.join(self.missing)}.", ""] if self.missing else []
        for title, frame in self.shown:
            lines += [*([f"{title}:", ""] if len(self.shown) > 1 else []), *markdown_table(frame), ""]
        if self.race.chooses:
            lines += [*(f"Decided by the rule ({race_words(self.race)}): {decision}." for decision in self.decisions), ""]
        return [*lines, *([self.cost, ""] if self.cost else [])]


def page_of_races(tables: Sequence[RaceTable]) -> list[str]:
    """The races of a study in its README: those of several under the stage of each, those that have not begun in a line."""
    if not tables:
        return []
    several = len(tables) > 1
    begun = [table for table in tables if len(table.frame) or not several]
    waiting = [table.race.stage for table in tables if several and not len(table.frame)]
    lines = ["## The tables" if several else "## The table", ""]
    lines += [f"Not begun: {', '.join(map(markdown_text, waiting))}.", ""] if waiting else []
    for table in begun:
        lines += [*([f"### {markdown_text(table.race.stage)}", ""] if several else []), *table.lines()]
    return [*lines, *(line for words in dict.fromkeys(meanings(table.headline) for table in begun) for line in (words, ""))]


def race_tables(study: Study, folder: Path) -> tuple[RaceTable, ...]:
    """The table of every race of a study, as far as its runs are done."""
    return tuple(
        race_table(_bench_in(folder / stage.race.stage), study.config(stage), stage.race, stage.name)
        for stage in study.stages
        if stage.race is not None
    )


def _bench_in(folder: Path) -> BenchRecords:
    """The runs of a stage; none where it has not begun."""
    return planned_bench(folder) if (folder / "runs").is_dir() else BenchRecords(folder.name, (), (), folder)


def race_table(bench: BenchRecords, config: BenchConfig, race: Race, name: str) -> RaceTable:
    """The table of one race from its runs alone."""
    decisions: tuple[Decision, ...] = ()
    missing = _missing(bench)
    try:
        decisions = decide(bench, config, race)
    except InputError as error:
        missing += list(error.problems)
    board = leaderboard_frame(bench)
    blocks = [block for block in bench.blocks if block.table_key.phase == REFIT]
    more = {block.table_key: block for block in of_race(bench, config).blocks}
    rows: list[dict[str, Any]] = []
    parts: list[tuple[str, pd.DataFrame]] = []
    for block in blocks:
        decision = next((one for one in decisions if one.block.table_key == block.table_key), None)
        of_block = [_row(row, block, more.get(block.table_key), bench.records, decision) for _, row in block.rows_of(board).iterrows()]
        rows += of_block
        waiting = [method for method in config.methods if method not in {row["method"] for row in of_block}]
        parts.append((block.title, race_frame(of_block, waiting, block.metric)))
    headline = bench.task.headline
    missing += _added_later(rows, race)
    if not blocks:
        parts.append((name, race_frame([], [NONE, *dict.fromkeys((KD, *config.methods))], headline)))
    frame = pd.DataFrame([_for_a_reader(row, headline) for row in rows])
    return RaceTable(name, race, headline, frame, tuple(parts), tuple(missing), decisions, _cost_of_trust(rows, headline))


def _missing(bench: BenchRecords) -> list[str]:
    """How many planned runs of each phase are still to be trained, and how many failed; a search leaves paused ones as they are."""
    words = {"sweep": "settings", REFIT: "fresh seeds"}
    reasons: list[str] = []
    for phase, word in words.items():
        records = [record for record in bench.records if record.table_key.phase == phase]
        open_runs = sum(record.state not in ("done", "failed", "paused") for record in records)
        failed = sum(record.state == "failed" for record in records)
        reasons += [f"{open_runs} of {number_of(len(records), 'run')} of the {word}"] if open_runs else []
        reasons += [f"{number_of(failed, 'run')} of the {word} failed"] if failed else []
    return reasons


def _added_later(rows: Iterable[Mapping[str, Any]], race: Race) -> list[str]:
    """The methods of which the race still has to add seeds."""
    names = [
        method_words(row["method"]) for row in rows if row.get("selected") and int(row["planned"]) < race.seeds_for(str(row["method"]))
    ]
    return [f"more seeds of {', '.join(names)}"] if names else []


def _row(row: pd.Series, block: Block, more: Block | None, records: Iterable[Record], decision: Decision | None) -> dict[str, Any]:
    """A row of the table as numbers."""
    method, metric = str(row["method"]), block.metric
    head = f"test_{metric.name}"
    own: dict[str, Any] = {"measure": f"race: {method_words(method)}", "method": method, "pair": block.table_key.pair}
    own |= {name: row[name] for name in (head, "test_sd", *NUMBERS, "n", "planned")} | {"setting": setting_words(row) or None}
    if method == TEACHER:
        return own | {"mean": row[head]}
    standing = block.only(method)
    if standing is not None:
        low, high = mean_interval(list(standing.values.values()), standing.resolution)
        own |= {"mean": row[head], "sd": row["test_sd"], "low": low, "high": high}
    own |= _on_added_seeds(method, more) | {"hours": _hours(record for record in records if record.method == method)}
    if decision is not None:
        own["selected"] = _reason(method, decision)
    if (gain := known_gains(metric).get(method)) is not None:
        own |= {"published_vs_kd": gain.mean, "published_least": gain.least, "published_most": gain.most, "published_pairs": gain.pairs}
        own["published_tables"] = " ".join(gain.tables)
    return own


def _for_a_reader(row: Mapping[str, Any], headline: Metric) -> dict[str, Any]:
    """A row of results.csv, with shares in per cent; `mean` and `sd` stand for the headline's own."""
    read = {name: headline.factor * value if IN_UNIT.fullmatch(name) and value is not None else value for name, value in row.items()}
    return {name: value for name, value in read.items() if name not in (f"test_{headline.name}", "test_sd")}


def _reason(method: str, decision: Decision) -> str:
    """Why the rule gave a method more seeds; empty where it did not."""
    groups = {"control": decision.controls, "best": decision.best, "widest": decision.widest}
    return next((word for word, standings in groups.items() if any(standing.record.method == method for standing in standings)), "")


def _on_added_seeds(method: str, more: Block | None) -> dict[str, Any]:
    """A method's difference to tuned KD on the seeds that the race added alone."""
    standing = None if more is None else more.only(method)
    if more is None or standing is None or method == KD or (control := more.only(KD)) is None:
        return {}
    columns = comparisons(more, KD).columns("added_vs_kd", standing)
    bounds = {name: columns.get(name, math.nan) for name in ("added_vs_kd_low", "added_vs_kd_high")}
    return {"added_vs_kd": standing.mean - control.mean, "added_n": len(standing.done), **bounds}


def _hours(records: Iterable[Record]) -> float | None:
    """Hours that runs take alone, by the probe of each."""
    costs = [((record.result or {}).get("cost") or {}).get("train_seconds") for record in records]
    known = [float(seconds) for seconds in costs if seconds is not None]
    return sum(known) / 3600 if known else None


def _cost_of_trust(rows: Sequence[Mapping[str, Any]], headline: Metric) -> str:
    """What a row costs whose detectable difference to tuned KD is small enough to be trusted, in words; empty for what is no share."""
    able = [row for row in rows if row["method"] not in (KD, NONE, TEACHER) and not pd.isna(row.get("detectable"))]
    trusted = [row for row in able if row["detectable"] <= TRUSTED]
    if not able or headline.unit != "share":
        return ""
    sentence = (
        f"A trusted row has a detectable difference to tuned KD of at most {100 * TRUSTED:g} points: {len(trusted)} of "
        f"{number_of(len(able), 'row')} have one"
    )
    hours = [float(row["hours"]) for row in trusted if row.get("hours") is not None]
    return f"{sentence}; the median of these took {float(np.median(hours)):.1f} core-hours." if hours else f"{sentence}."
