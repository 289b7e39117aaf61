"""The table of a race: every method with its runs so far, what was decided, its price and published numbers. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.errors import InputError
from kdzoo.suite.plan.config import KD, NONE, BenchConfig
from kdzoo.suite.plan.race import Race
from kdzoo.suite.report.blocks import TEACHER, Block, blocks_of, comparisons
from kdzoo.suite.report.leaderboard import leaderboard_frame
from kdzoo.suite.report.published import Published, published
from kdzoo.suite.report.race import REFIT, Decision, decide, of_race
from kdzoo.suite.report.records import BenchRecords, Record
from kdzoo.suite.report.stats import mean_interval
from kdzoo.suite.report.tables import interval_words, markdown_table, method_words, setting_words, spread_words
from kdzoo.suite.study.stages import planned_bench
from kdzoo.suite.study.study import Study
from kdzoo.text import number_of

CRD_TABLE = "crd"
TRUSTED = 0.0035
"""a row is trusted where the difference to tuned KD that it would probably detect is at most this share of the test images"""
SHARES = ("test_top1", "test_sd", "vs_", "added_vs_", "detectable")
"""how the columns begin that are shares in a leaderboard, and points in results.csv"""
NUMBERS = (
    "test_top1", "test_sd", "vs_kd", "vs_kd_low", "vs_kd_high", "p_vs_kd", "vs_kd_all_low", "vs_kd_all_high", "p_vs_kd_all", "vs_alone",
    "vs_alone_low", "vs_alone_high", "detectable", "dose", "coefficient", "temperature", "alpha", "settings_tried", "student_passes",
    "backward_passes", "teacher_passes", "macs_ratio", "time_ratio", "collapsed",
)  # fmt: skip
"""columns of a leaderboard that a row of the table has too"""


@dataclass(frozen=True)
class Gain:
    """Published differences of a method to plain KD on CRD's pairs, in points: their mean and range, and from which tables."""

    pairs: int
    mean: float
    least: float
    most: float
    tables: tuple[str, ...]

    def __str__(self) -> str:
        spread = f" [{self.least:+.2f}, {self.most:+.2f}]" if self.pairs > 1 else ""
        return f"{self.mean:+.2f}{spread} ({number_of(self.pairs, 'pair')}: {', '.join(self.tables)})"


@dataclass(frozen=True)
class RaceTable:
    """One race as numbers (frame) and as a reader sees it (shown), with what is still missing and what was decided."""

    stage: str
    race: Race
    frame: pd.DataFrame
    shown: tuple[tuple[str, pd.DataFrame], ...]
    missing: tuple[str, ...]
    decisions: tuple[Decision, ...]
    cost: str

    def lines(self) -> list[str]:
        """Its part of a study's README."""
        lines = ["## The table", ""]
        lines += [f"Missing: {'; '.join(self.missing)}.", ""] if self.missing else []
        for title, shown in self.shown:
            lines += [*([f"### {title}", ""] if len(self.shown) > 1 else []), *markdown_table(shown), ""]
        lines += [f"Decided by the rule ({race_words(self.race)}): {decision}." for decision in self.decisions]
        lines += ["", *([self.cost, ""] if self.cost else []), READ_AS, "", "## Numbers of the claim", ""]
        return lines


READ_AS = (
    "n: seeds on all training images. top-1: per cent of the test images after the last epoch, mean ± sample standard deviation, with "
    "its 95 % interval by Student's t. vs KD: difference to tuned plain KD in points, with the interval of this row by itself, by the "
    "table's error model (`leaderboard.md` in the stage's folder has the intervals for all rows at once). added seeds: the same on the "
    "seeds that the rule added alone; it looked at the first ones, on which the rows that it took for their means are likely to look "
    "better than they are. detectable: the difference to tuned KD that such a row would probably show (80 % power). taken: why the rule "
    "gave a row more seeds. passes: forward and backward passes of the student and forward passes of the teacher in a step; MACs: "
    "multiply-accumulates of training, the student alone being 1; hours: of one core, of all runs of the method, those that chose its "
    "setting too. published: difference to plain KD on CRD's thirteen pairs at 32x32 pixels, the mean over pairs [least, most], without "
    "numbers copied from earlier tables."
)


def race_words(race: Race) -> str:
    """The rule of a race in words."""
    takes = [f"the {race.best} with the highest mean" if race.best else ""]
    whose = "plain KD" if race.against == KD else "the student alone"
    takes.append(f"the {race.widest} of the others with the widest interval of the difference to {whose}" if race.widest else "")
    return (
        f"of stage {race.stage}, on the seeds of its refit, {' and '.join(filter(None, takes))} go to {race.seeds} seeds in all, "
        f"the student alone and plain KD to {race.seeds_for(NONE)}"
    )


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
    blocks = [block for block in blocks_of(bench) if block.place.phase == REFIT]
    added = {block.place: block for block in blocks_of(of_race(bench, config))}
    rows: list[dict[str, Any]] = []
    shown: list[tuple[str, pd.DataFrame]] = []
    for block in blocks:
        decision = next((one for one in decisions if one.block.place == block.place), None)
        found = [_row(row, block, added.get(block.place), bench.records, decision) for _, row in block.rows_of(board).iterrows()]
        rows += found
        shown.append((block.title, _shown(found, [method for method in config.methods if method not in {row["method"] for row in found}])))
    if not blocks:
        shown.append((name, _shown([], [NONE, *dict.fromkeys((KD, *config.methods))])))
    return RaceTable(
        name, race, pd.DataFrame([_in_points(row) for row in rows]), tuple(shown), tuple(missing), decisions, _cost_of_trust(rows)
    )


def _missing(bench: BenchRecords) -> list[str]:
    """How many planned runs of each phase are not done, and how many failed."""
    words = {"sweep": "settings", REFIT: "fresh seeds"}
    found: list[str] = []
    for phase, word in words.items():
        records = [record for record in bench.records if record.place.phase == phase]
        left = sum(record.state not in ("done", "failed") for record in records)
        failed = sum(record.state == "failed" for record in records)
        found += [f"{left} of {number_of(len(records), 'run')} of the {word}"] if left else []
        found += [f"{number_of(failed, 'run')} of the {word} failed"] if failed else []
    return found


def _row(row: pd.Series, block: Block, added: Block | None, records: Iterable[Record], decision: Decision | None) -> dict[str, Any]:
    """A row of the table as numbers."""
    method = str(row["method"])
    own: dict[str, Any] = {"measure": f"race: {method_words(method)}", "method": method, "pair": block.place.pair}
    own |= {name: row[name] for name in NUMBERS} | {"n": row["n"], "planned": row["planned"], "setting": setting_words(row) or None}
    if method == TEACHER:
        return own | {"mean": 100 * row["test_top1"]}
    standing = block.only(method)
    if standing is not None:
        low, high = mean_interval(list(standing.top1.values()), 1 / standing.images)
        own |= {"mean": 100 * row["test_top1"], "sd": 100 * row["test_sd"], "low": 100 * low, "high": 100 * high}
    own |= _on_added_seeds(method, added) | {"hours": _hours(record for record in records if record.method == method)}
    if decision is not None:
        own["taken"] = _taken(method, decision)
    if (gain := known_gains().get(method)) is not None:
        own |= {"published_vs_kd": gain.mean, "published_least": gain.least, "published_most": gain.most, "published_pairs": gain.pairs}
        own["published_tables"] = " ".join(gain.tables)
    return own


def _in_points(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of results.csv, whose accuracies and differences are in per cent; `mean` and `sd` stand for the test accuracy's own."""
    points = {name: 100 * value if name.startswith(SHARES) and value is not None else value for name, value in row.items()}
    return {name: value for name, value in points.items() if name not in ("test_top1", "test_sd")}


def _taken(method: str, decision: Decision) -> str:
    """Why the rule gave a method more seeds; empty where it did not."""
    groups = {"control": decision.controls, "best": decision.best, "widest": decision.widest}
    return next((word for word, found in groups.items() if any(standing.record.method == method for standing in found)), "")


def _on_added_seeds(method: str, added: Block | None) -> dict[str, Any]:
    """A method's difference to tuned KD on the seeds that the race added alone."""
    standing = None if added is None else added.only(method)
    if added is None or standing is None or method == KD or (control := added.only(KD)) is None:
        return {}
    columns = comparisons(added, KD).columns("added_vs_kd", standing)
    bounds = {name: columns.get(name, math.nan) for name in ("added_vs_kd_low", "added_vs_kd_high")}
    return {"added_vs_kd": standing.mean_top1 - control.mean_top1, "added_n": len(standing.done), **bounds}


def _hours(records: Iterable[Record]) -> float | None:
    """Hours that runs take alone, by the probe of each."""
    costs = [((record.result or {}).get("cost") or {}).get("train_seconds") for record in records]
    known = [float(seconds) for seconds in costs if seconds is not None]
    return sum(known) / 3600 if known else None


def _cost_of_trust(rows: Sequence[Mapping[str, Any]]) -> str:
    """What a row costs whose detectable difference to tuned KD is small enough to be trusted, in words."""
    able = [row for row in rows if row["method"] not in (KD, NONE, TEACHER) and not pd.isna(row.get("detectable"))]
    trusted = [row for row in able if row["detectable"] <= TRUSTED]
    if not able:
        return ""
    told = (
        f"A trusted row has a detectable difference to tuned KD of at most {100 * TRUSTED:g} points: {len(trusted)} of "
        f"{number_of(len(able), 'row')} have one"
    )
    hours = [float(row["hours"]) for row in trusted if row.get("hours") is not None]
    return f"{told}; the median of these took {float(np.median(hours)):.1f} core-hours." if hours else f"{told}."


def _shown(rows: Sequence[Mapping[str, Any]], waiting: Iterable[str]) -> pd.DataFrame:
    """Rows as text; below them the methods without any run on all training images."""
    cells = [
        {
            "method": method_words(row["method"]),
            "setting": row["setting"] or "",
            "n": _count(row),
            "top-1": spread_words(row["test_top1"], row["test_sd"]),
            "95 % interval": _bounds(row.get("low"), row.get("high")),
            "vs KD": _difference(row, "vs_kd"),
            "added seeds": _difference(row, "added_vs_kd"),
            "detectable": _number(row["detectable"], ".2f", 100),
            "taken": row.get("taken") or "",
            "passes": "/".join(_number(row[f"{name}_passes"], ".0f") or "-" for name in ("student", "backward", "teacher"))
            if not pd.isna(row["student_passes"])
            else "",
            "MACs": _number(row["macs_ratio"], ".2f"),
            "dose": _number(row["dose"], ".2g"),
            "hours": _number(row.get("hours"), ".1f"),
            "published": _published(row["method"]),
            "note": row["collapsed"] if isinstance(row["collapsed"], str) else "",
        }
        for row in rows
    ]
    frame = pd.DataFrame([*cells, *({"method": method_words(method), "n": "0"} for method in waiting)], dtype=object).fillna("")
    return frame[[name for name in frame.columns if name in ("method", "n") or frame[name].any()]]


def _published(method: str) -> str:
    gain = known_gains().get(method)
    return "" if gain is None or method == KD else str(gain)


def _count(row: Mapping[str, Any]) -> str:
    n, planned = row["n"], row["planned"]
    return f"{n:.0f}" if pd.isna(planned) or n == planned else f"{n:.0f} of {planned:.0f}"


def _bounds(low: Any, high: Any) -> str:
    return "" if low is None or pd.isna(low) else f"[{low:.2f}, {high:.2f}]"


def _difference(row: Mapping[str, Any], name: str) -> str:
    values = [row.get(f"{name}{part}") for part in ("", "_low", "_high")]
    return interval_words(*(math.nan if value is None else float(value) for value in values))


def _number(value: Any, form: str, factor: float = 1) -> str:
    return "" if value is None or pd.isna(value) else f"{factor * value:{form}}"


@cache
def known_gains() -> dict[str, Gain]:
    """`published_gains` of every table that comes with kdzoo."""
    return published_gains(published())


def published_gains(rows: Sequence[Published]) -> dict[str, Gain]:
    """Every method's published differences to plain KD on CRD's pairs, each pair's mean over the tables that have both.

    A table without plain KD on a pair is compared with CRD's own number. Numbers copied from earlier tables do not count.
    """
    pairs = {row.pair for row in rows if row.table == CRD_TABLE}
    there = [row for row in rows if row.pair in pairs and row.data == "cifar100"]
    kd = {(row.table, row.pair): row.top1 for row in there if row.method == KD}
    found: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for row in there:
        base = kd.get((row.table, row.pair), kd.get((CRD_TABLE, row.pair)))
        if base is not None and row.run_by != "copied":
            found.setdefault(row.method, {}).setdefault(row.pair, []).append((row.table, row.top1 - base))
    gains: dict[str, Gain] = {}
    for method, of_pairs in found.items():
        means = [float(np.mean([gain for _, gain in values])) for values in of_pairs.values()]
        tables = dict.fromkeys(sorted(table for values in of_pairs.values() for table, _ in values))
        gains[method] = Gain(len(means), float(np.mean(means)), min(means), max(means), tuple(tables))
    return gains
