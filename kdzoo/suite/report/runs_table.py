"""runs.csv: one row per run, from run.json and result.json alone."""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any

import pandas as pd

from kdzoo.runs.canonical import canonical
from kdzoo.suite.report.bench import BenchRecords
from kdzoo.suite.report.latency import LATENCY
from kdzoo.suite.report.records import Record
from kdzoo.suite.report.settings import setting_of
from kdzoo.tasks.task import Task

COSTS = (
    "student_passes", "backward_passes", "teacher_passes", "views", "step_macs", "train_macs", "time_ratio",
    "memory_bytes", "extra_parameters", "step_seconds", "train_seconds",
)  # fmt: skip
"""what stays the same on every machine first; seconds of the clock last"""


SETTING = ("temperature", "alpha", "weight", "coefficient", "dose", "others")


def runs_frame(bench: BenchRecords, only: Container[str] | None = None) -> pd.DataFrame:
    """A row a run, in the order of pair, phase, method, setting and seed. Accuracies are shares.

    only: the ids of the runs that have a row; None for all. student_milliseconds is there only where one of these measured it.
    """
    chosen_records = bench.records if only is None else [record for record in bench.records if record.id in only]
    records = sorted(chosen_records, key=lambda r: (r.table_key[:-1], r.method, r.setting_key, r.run.seed, r.id))
    recipes = {record.id: block.recipe for block in reversed(bench.blocks) for record in block.records}
    columns = list(_run_row(None, None, bench.task))
    rows = [tuple(_run_row(r, recipes.get(r.id, r.table_key.recipe), bench.task).values()) for r in records]  # a fifth of a dict's memory
    frame = pd.DataFrame(rows, columns=columns)
    return frame if frame[LATENCY].notna().any() else frame.drop(columns=LATENCY)


def _run_row(record: Record | None, recipe: str | None, task: Task) -> dict[str, Any]:
    """A run's row; the columns, with nothing in them, for None."""
    result = (record.result if record else None) or {}
    last, best, oracle = result.get("last") or {}, result.get("best") or {}, result.get("oracle") or {}
    teacher, student, cost = result.get("teacher") or {}, result.get("student") or {}, result.get("cost") or {}
    run, key = (record.run, record.table_key) if record else (None, None)
    head = task.headline.name
    return {
        "id": record and record.id,
        "pair": key and key.pair,
        "data": key and key.data,
        "recipe": recipe,
        "epochs": key and key.epochs,
        "phase": key and key.phase,
        "method": record and record.method,
        **(setting_columns(record) if record else dict.fromkeys(SETTING)),
        "seed": run and run.seed,
        "state": record and record.state,
        **{f"val_{name}": (last.get("val") or {}).get(name) for name in task.names},
        **{f"test_{name}": (last.get("test") or {}).get(name) for name in task.names},
        "best_epoch": best.get("epoch"),
        f"best_val_{head}": (best.get("val") or {}).get(head),
        f"test_{head}_at_best_val": (best.get("test") or {}).get(head),
        "oracle_epoch": oracle.get("epoch"),
        f"oracle_test_{head}": (oracle.get("test") or {}).get(head),
        "train_loss": (result.get("train") or {}).get("loss"),
        "train_samples": (result.get("train") or {}).get("samples"),
        f"teacher_val_{head}": (teacher.get("val") or {}).get(head),
        f"teacher_test_{head}": (teacher.get("test") or {}).get(head),
        "teacher_parameters": teacher.get("parameters"),
        "student_parameters": student.get("parameters"),
        "student_macs": student.get("macs"),
        **{name: cost.get(name) for name in (*COSTS, LATENCY)},
        "device": (result.get("environment") or {}).get("device"),
        "threads": (result.get("environment") or {}).get("threads"),
        "seconds": result.get("seconds"),
        "error": record and record.error,
    }


def setting_columns(record: Record) -> dict[str, Any]:
    setting = setting_of(record.run.objective, record.about.get("methods", {}), record.about.get("doses", {}))
    others = json.dumps(canonical(dict(setting.others)), sort_keys=True) if setting.others else None
    return {**{name: getattr(setting, name) for name in SETTING}, "others": others}
