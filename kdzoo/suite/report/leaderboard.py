"""leaderboard.csv: one row per method at its chosen setting, as numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kdzoo.suite.plan.config import NONE
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.blocks import CONTROLS, HEAD, TEACHER, Block, Standing, position_of
from kdzoo.suite.report.budget_words import EVERY_SETTING, search_words
from kdzoo.suite.report.comparisons import comparisons
from kdzoo.suite.report.error_model import sample_sd
from kdzoo.suite.report.latency import LATENCY, latencies, student_key
from kdzoo.suite.report.proof import COLUMNS as PROOF
from kdzoo.suite.report.proof import Proof
from kdzoo.suite.report.records import Record
from kdzoo.suite.report.rules import lead_is_clear
from kdzoo.suite.report.runs_table import COSTS, SETTING, setting_columns
from kdzoo.tasks.task import Task

SEARCH = "search"
"""the column that says how the settings were searched, where that was within a budget"""


def leaderboard_frame(bench: BenchRecords) -> pd.DataFrame:
    """A row a method at its chosen setting, best first, for every pair, data set and phase; the teacher as a reference.

    Differences are in the task's headline (top-1 of a classification) on the test images after the last epoch, to tuned plain
    KD and to the student alone, each with a 95 %
    interval and its p-value (vs_kd_low, vs_kd_high, p_vs_kd) and with those that hold for all rows of the table at once
    (vs_kd_all_low, vs_kd_all_high, p_vs_kd_all); vs_kd_holm: whether it stands after Holm's correction. `collapsed` says
    why a row has none of that. `rank` is by the mean headline (rank_top1) over rank_seeds, which all ranked rows have; rows without
    these seeds follow without a rank. gap_closed is there only where the teacher's lead is clear. time_ratio and macs_ratio
    are the cost of training as multiples of the student alone's. student_milliseconds is there only where runs of this bench measured it,
    the columns of `proof.COLUMNS` where it was verified or merged, and `search` where a budget paused some of the runs.
    """
    known, proof = latencies(bench), bench.proof
    rows = [row for block in bench.blocks for row in _block_rows(block, known, proof)]
    further = [*([LATENCY] if known else []), *(PROOF if proof is not None else [])]
    searched = any(block.searched for block in bench.blocks)
    return pd.DataFrame(rows, columns=[*_columns(bench.task), *further, *([SEARCH] if searched else [])])


def _columns(task: Task) -> tuple[str, ...]:
    head = task.headline.name
    return (
    *HEAD, "rank", "rank_seeds", f"rank_{head}", "method", *SETTING, "swept",
    "settings_tried", "n", "planned", "failed", "collapsed",
    f"test_{head}", "test_sd", f"test_{head}_at_best_val", f"oracle_test_{head}", f"val_{head}", "pairing",
    *(column for name in CONTROLS for column in (
        f"vs_{name}", f"vs_{name}_low", f"vs_{name}_high", f"p_vs_{name}",
        f"vs_{name}_all_low", f"vs_{name}_all_high", f"p_vs_{name}_all", f"vs_{name}_holm",
    )),
    "gap_closed", "detectable", *(f"test_{name}" for name in _others(task)), *COSTS, "macs_ratio",
    "student_parameters", "student_macs",
    )  # fmt: skip


def _others(task: Task) -> list[str]:
    """The metrics beside the headline of which a leaderboard has the mean."""
    return [metric.name for metric in task.metrics if metric.in_leaderboard and metric is not task.headline]


def _block_rows(block: Block, known: Mapping[tuple[Any, ...], float], proof: Proof | None) -> list[dict[str, Any]]:
    """The rows of a table. known: milliseconds of students (`latencies`); proof: what is known of its runs from elsewhere."""
    teachers = [teacher for record in block.records if (teacher := (record.result or {}).get("teacher")) and teacher["test"]]
    tests = {name: comparisons(block, control) for name, control in CONTROLS.items()}
    rows = [
        {
            **block.head,
            **_row(standing, known),
            "pairing": _seed_pairing(block) if position_of(block.compared, standing) is not None else None,
            **_differences(standing, block),
            **_gap_closed(standing, block, teachers),
            **_ranked_by(standing, block),
            **(proof.columns(standing.done) if proof is not None else {}),
            SEARCH: search_words(block.searched) or EVERY_SETTING,
            "macs_ratio": _macs_ratio(standing, block),
            **{column: value for name in CONTROLS for column, value in tests[name].columns(f"vs_{name}", standing).items()},
            "detectable": next((value for name in CONTROLS if (value := tests[name].detectable(standing)) is not None), None),
        }
        for standing in block.standings
    ]
    ranked, sign = f"rank_{block.metric.name}", block.metric.sign
    # Means of equal values may differ in the last bits: a tie is a tie, and goes by name and setting.
    rows.sort(
        key=lambda row: (
            row["collapsed"] is not None,
            ranked not in row,
            -sign * round(row.get(ranked, _or(row[f"test_{block.metric.name}"], -sign * math.inf if sign < 0 else -1.0)), 10),
            row["method"],
            str(row["others"]),
            *_numbers(row),
        )
    )
    for rank, row in enumerate((row for row in rows if ranked in row), start=1):
        row["rank"] = rank
    return [{**block.head, **_teacher_row(teachers[0], block.records[0].task)}, *rows] if teachers else rows


def _ranked_by(standing: Standing, block: Block) -> dict[str, Any]:
    """What a setting is ranked by: its mean over the seeds that all ranked rows share. Nothing where it has no rank."""
    if position_of(block.ranked, standing) is None:
        return {}
    return {"rank_seeds": " ".join(map(str, sorted(block.common_seeds))), f"rank_{block.metric.name}": block.common_mean(standing)}


def _macs_ratio(standing: Standing, block: Block) -> float | None:
    """A setting's multiply-accumulates of training, as a multiple of the student alone's."""
    alone = block.only(NONE)
    own, base = (_median(s.done, "train_macs") if s is not None else None for s in (standing, alone))
    return own / base if own is not None and base else None


def _seed_pairing(block: Block) -> str:
    return "by seed" if block.model is not None and block.model.paired else "none"


def _numbers(row: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(_or(row[name], -1.0) for name in ("alpha", "temperature", "weight", "coefficient"))


def _row(standing: Standing, known: Mapping[tuple[Any, ...], float]) -> dict[str, Any]:
    """What the runs of a setting say by themselves."""
    record, done, head = standing.record, standing.done, standing.metric.name
    student = (done[0].result or {}).get("student", {}) if done else {}
    return {
        "method": record.method,
        **setting_columns(record),
        "swept": ",".join(record.about.get("swept", ())) or None,
        "settings_tried": standing.tried,
        "n": len(done),
        "planned": len(standing.candidate.records),
        "failed": sum(r.state == "failed" for r in standing.candidate.records),
        "collapsed": standing.collapsed,
        f"test_{head}": _mean(done, "last", "test", head),
        "test_sd": sample_sd(list(standing.values.values())) if done else None,
        f"test_{head}_at_best_val": _mean(done, "best", "test", head),
        f"oracle_test_{head}": _mean(done, "oracle", "test", head),
        f"val_{head}": _mean(done, "last", "val", head),
        **{f"test_{name}": _mean(done, "last", "test", name) for name in _others(record.task)},
        **{name: _median(done, name) for name in COSTS},
        "student_parameters": student.get("parameters"),
        "student_macs": student.get("macs"),
        LATENCY: known.get(student_key(done[0].result)) if done and done[0].result else None,
    }


def _differences(standing: Standing, block: Block) -> dict[str, Any]:
    """Differences of means to tuned KD and to the student alone."""
    controls = {name: block.only(control) for name, control in CONTROLS.items()}
    return {
        f"vs_{name}": standing.mean - control.mean
        for name, control in controls.items()
        if standing.done and control is not None and control is not standing
    }


def _gap_closed(standing: Standing, block: Block, teachers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The share of the way from the student alone to the teacher that a healthy setting has gone.

    Only where the teacher's lead over the student alone is clear (`rules.lead_is_clear`): a share of a lead that may be
    nothing is no number.
    """
    alone = block.only(NONE)
    if alone is None or not teachers or any(position_of(block.healthy, one) is None for one in (standing, alone)):
        return {}
    base = alone.mean
    metric = block.metric
    values = [teacher["test"][metric.name] for teacher in teachers]
    if None in values:  # a teacher that does not score the primary column
        return {}
    teacher = float(np.mean(values))
    if not lead_is_clear(
        metric.sign * teacher, [metric.sign * value for value in alone.values.values()], alone.images if metric.unit == "share" else None
    ):
        return {}
    return {"gap_closed": (standing.mean - base) / (teacher - base)}


def _teacher_row(teacher: Mapping[str, Any], task: Task) -> dict[str, Any]:
    test, head = teacher["test"], task.headline.name
    return {
        "method": TEACHER,
        "n": 1,
        f"test_{head}": test[head],
        f"val_{head}": (teacher.get("val") or {}).get(head),
        **{f"test_{name}": test[name] for name in _others(task) if name in task.own_names},
        "student_parameters": teacher.get("parameters"),
        "student_macs": teacher.get("macs"),
    }


def _mean(done: Iterable[Record], *path: str) -> float | None:
    values = [_at(record.result, path) for record in done]
    return float(np.mean(values)) if values and all(value is not None for value in values) else None


def _median(done: Iterable[Record], name: str) -> float | None:
    values = [_at(record.result, ("cost", name)) for record in done]
    return float(np.median(values)) if values and all(value is not None for value in values) else None


def _at(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = value.get(key) if value is not None else None
    return value


def _or(value: float | None, other: float) -> float:
    return other if value is None or math.isnan(value) else value
