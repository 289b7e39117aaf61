"""The columns of a leaderboard for a reader, and which of them are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import pandas as pd

from kdzoo.errors import InputError, unknown
from kdzoo.suite.report.cells import (
    STUDENT_ALONE,
    bounds_of,
    bytes_text,
    count_text,
    holm_mark,
    interval_of,
    method_words,
    number_text,
    on_common_seeds,
    p_value_words,
    passes_text,
    replicas_text,
    setting_words,
    spread_words,
    text_of,
)
from kdzoo.tasks.task import Metric

ALL_COLUMNS = "all"


def selected(shown: pd.DataFrame, columns: str, metric: Metric) -> pd.DataFrame:
    """The columns with the headings in a text such as `setting,vs KD`, as far as this table has them; `all` for all.

    metric: the headline of the table's task. Raises InputError with the nearest heading for one that no table has.
    """
    return columns_of(shown, columns, headings(metric))


def columns_of(frame: pd.DataFrame, columns: str, known: Sequence[str] = ()) -> pd.DataFrame:
    """The columns named in a text, separated by commas, the method first; `all` for all. Large and small letters are alike.

    known: names that another table may have. Raises InputError with the nearest name for any other.
    """
    if columns.strip().lower() == ALL_COLUMNS:
        return frame
    names = {str(name).lower(): str(name) for name in (*known, *frame.columns)}
    requested = [name.strip() for name in columns.split(",") if name.strip()]
    if not requested:
        raise InputError(f"columns: expected names separated by commas, or all, got {columns!r}")
    if wrong := [unknown("columns", name, sorted(names.values())) for name in requested if name.lower() not in names]:
        raise InputError(*wrong)
    first = ("method",) if known or "method" in frame else ()
    return frame[[name for name in dict.fromkeys((*first, *(names[name.lower()] for name in requested))) if name in frame]]


@dataclass(frozen=True)
class Column:
    """One column of a leaderboard for a reader: its heading, a row's cell as text, and what a footnote says of it.

    value: the column of leaderboard.csv that it shows, or begins with, and is ordered by; empty where there is none.
    """

    name: str
    cell: Callable[[pd.Series], str]
    meaning: str = ""
    value: str = ""


def _control_columns(name: str, words: str, metric: Metric) -> tuple[Column, ...]:
    """A control's columns: difference and p-value of a row by itself, and those for all rows at once."""
    short = words.split()[-1]
    return (
        Column(f"vs {words}", lambda row: interval_of(row, f"vs_{name}", metric) + holm_mark(row[f"vs_{name}_holm"]), value=f"vs_{name}"),
        Column(f"p {short}", lambda row: p_value_words(row[f"p_vs_{name}"]), value=f"p_vs_{name}"),
        Column(f"vs {short} {ALL_COLUMNS}", lambda row: bounds_of(row, f"vs_{name}_all", metric), value=f"vs_{name}_all_low"),
        Column(f"p {short} {ALL_COLUMNS}", lambda row: p_value_words(row[f"p_vs_{name}_all"]), value=f"p_vs_{name}_all"),
    )


def _beside(metric: Metric) -> Column:
    """The column of a metric that stands beside the headline."""
    name = f"test_{metric.name}"
    return Column(f"test {metric.heading}", lambda row: metric.text(row[name]), value=name)


@cache
def columns_for(metric: Metric) -> tuple[Column, ...]:
    """The columns of a leaderboard for a reader from left to right, of a task with this headline."""
    name, word = metric.name, metric.heading
    return (
        Column("#", lambda row: number_text(row["rank"], ".0f"), value="rank"),
        Column("method", lambda row: method_words(row["method"]), value="method"),
        Column("setting", lambda row: setting_words(row)),
        Column("n", lambda row: count_text(row), value="n"),
        Column(f"test {word}", lambda row: spread_words(row[f"test_{name}"], row["test_sd"], metric), value=f"test_{name}"),
        *map(_beside, metric.beside),
        Column(
            "on common seeds",
            lambda row: on_common_seeds(row, metric),
            f"test {word} over the seeds that ranks are made on",
            f"rank_{name}",
        ),
        Column(
            f"{word} at best val",
            lambda row: metric.text(row[f"test_{name}_at_best_val"]),
            f"test {word} of the epoch that is best on validation",
            f"test_{name}_at_best_val",
        ),
        Column(
            "best on test (oracle)",
            lambda row: metric.text(row[f"oracle_test_{name}"]),
            "chosen by looking at the test images, not a result",
            f"oracle_test_{name}",
        ),
        Column(f"val {word}", lambda row: metric.text(row[f"val_{name}"]), f"validation {word} of the last epoch", f"val_{name}"),
        *_control_columns("kd", "KD", metric),
        *_control_columns("alone", STUDENT_ALONE, metric),
        Column(
            "gap closed",
            lambda row: number_text(row["gap_closed"], ".0%").replace("%", " %"),
            "share of the way from the student alone to the teacher, where the teacher's lead is clear of its 95 % interval",
            "gap_closed",
        ),
        Column(
            "status",
            lambda row: text_of(row, "status"),
            "verified where one of its runs was trained again elsewhere and agreed, measured where its runs are here alone",
            "status",
        ),
        Column("replicas", replicas_text, "how often its runs were trained besides, with the same outcome", "replicas"),
        Column(
            "search",
            lambda row: text_of(row, "search"),
            "how the settings were searched, with what was trained in whole runs; a setting that was paused has no row",
            "search",
        ),
        Column("tried", lambda row: number_text(row["settings_tried"], ".0f"), "settings tried", "settings_tried"),
        Column(
            "passes",
            lambda row: passes_text(row),
            "a step's forward and backward passes of the student and forward passes of a live teacher (what a loss runs itself is in MACs)",
            "student_passes",
        ),
        Column(
            "MACs",
            lambda row: number_text(row["macs_ratio"], ".2f", "x"),
            "multiply-accumulates of training (networks, losses, backward), the student alone being 1",
            "macs_ratio",
        ),
        Column(
            "time",
            lambda row: number_text(row["time_ratio"], ".2f", "x"),
            "processor time of training (on a GPU, of the device), the student alone being 1, from a probe of both in turn",
            "time_ratio",
        ),
        Column(
            "memory",
            lambda row: bytes_text(row["memory_bytes"]),
            "bytes of weights, gradients, optimiser state and saved activations",
            "memory_bytes",
        ),
        Column(
            "clock s",
            lambda row: number_text(row["train_seconds"], ".3g"),
            "seconds of a solo run by the clock, from a probe; depends on what else the machine does",
            "train_seconds",
        ),
    )


PAIRS_HEADINGS = ("pairs", "p KD", "mean rank")


def headings(metric: Metric) -> tuple[str, ...]:
    """What a reader may ask for by `--columns`, of a task with this headline."""
    return tuple(dict.fromkeys((*(column.name for column in columns_for(metric)), "why", *PAIRS_HEADINGS)))
