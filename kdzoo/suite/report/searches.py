"""What independent searches came to, together: `searches.csv` and `searches.md` in the bench's folder. Free of torch.

A search is a bench of its own (choosing, then refitting with fresh seeds). What the searches of a method differ by is more than what
seeds differ by: another search may choose another setting.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from kdzoo.errors import InputError
from kdzoo.runs.atomic import write_bytes
from kdzoo.suite.plan.config import KD
from kdzoo.suite.plan.searches import PREFIX
from kdzoo.suite.report.bench import BenchRecords, read_bench
from kdzoo.suite.report.blocks import Block
from kdzoo.suite.report.cells import interval_words, method_words, spread_words
from kdzoo.suite.report.error_model import LEVEL
from kdzoo.suite.report.markdown import markdown_table
from kdzoo.suite.report.table_files import as_csv
from kdzoo.tasks.task import Metric

REFIT = "refit"
TABLE, PAGE = "searches.csv", "searches.md"
COLUMNS = (
    "pair", "data", "recipe", "method", "searches", "collapsed", "settings", "test", "test_sd",
    "vs_kd", "vs_kd_sd", "vs_kd_low", "vs_kd_high",
)  # fmt: skip


def read_searches(folder: Path) -> list[BenchRecords]:
    """The searches of a bench, in their order; raises InputError where there is none."""
    found = sorted((path for path in folder.glob(f"{PREFIX}*") if (path / "runs").is_dir()), key=lambda path: (len(path.name), path.name))
    if not found:
        raise InputError(f"{folder}: no searches (expected folders {PREFIX}1, {PREFIX}2, ... with runs/)")
    return [read_bench(path) for path in found]


def searches_frame(benches: Iterable[BenchRecords]) -> pd.DataFrame:
    """A row a method of every table: its mean over the refits of all searches, and its gain over tuned KD, search by search.

    test_sd, vs_kd_sd: between searches, which holds the variance of the search and that of the refits' seeds; the interval is
    Student's t over searches. A collapsed setting has no number in its search, and is counted. settings: how many different
    ones the searches chose.
    """
    found: dict[tuple[str, ...], list[tuple[str, float | None, float | None]]] = {}
    for bench in benches:
        for block in (one for one in bench.blocks if one.table_key.phase == REFIT):
            kd = block.only(KD)
            for standing in block.standings:
                healthy = standing.collapsed is None and bool(standing.done)
                gain = standing.mean - kd.mean if healthy and kd is not None and kd.collapsed is None else None
                key = (*_table(block), standing.record.method)
                found.setdefault(key, []).append((standing.record.setting_key, standing.mean if healthy else None, gain))
    rows = [{**dict(zip(COLUMNS, key, strict=False)), **_numbers(values)} for key, values in sorted(found.items())]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.sort_values(["pair", "data", "recipe", "vs_kd"], ascending=[True, True, True, False], kind="stable", ignore_index=True)


def _table(block: Block) -> tuple[str, str, str]:
    return block.table_key.pair, block.table_key.data, block.recipe


def _numbers(values: list[tuple[str, float | None, float | None]]) -> dict[str, float | int | None]:
    tests = np.array([test for _, test, _ in values if test is not None])
    gains = np.array([gain for _, _, gain in values if gain is not None])
    low, high = t_interval(gains)
    return {
        "searches": len(values),
        "collapsed": sum(test is None for _, test, _ in values),
        "settings": len({setting for setting, _, _ in values}),
        "test": float(tests.mean()) if len(tests) else None,
        "test_sd": float(tests.std(ddof=1)) if len(tests) > 1 else None,
        "vs_kd": float(gains.mean()) if len(gains) else None,
        "vs_kd_sd": float(gains.std(ddof=1)) if len(gains) > 1 else None,
        "vs_kd_low": low,
        "vs_kd_high": high,
    }


def t_interval(values: np.ndarray) -> tuple[float | None, float | None]:
    """Student's interval of a mean; None for fewer than two values."""
    if len(values) < 2:
        return None, None
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, 0.5 + LEVEL / 2)) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) - half, float(values.mean()) + half


def shown_searches(frame: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """The same as text for a reader; the control has no gain over itself."""
    rows = [row for _, row in frame.iterrows()]
    return pd.DataFrame(
        {
            "pair": frame["pair"].astype(str),
            "method": [method_words(row["method"]) for row in rows],
            "searches": [f"{row['searches']}{f' ({row.collapsed} collapsed)' if row['collapsed'] else ''}" for row in rows],
            "settings": frame["settings"].astype(str),
            f"test {metric.heading}": [spread_words(row["test"], row["test_sd"], metric) for row in rows],
            "vs KD": [
                "" if row["method"] == KD else interval_words(row["vs_kd"], row["vs_kd_low"], row["vs_kd_high"], metric) for row in rows
            ],
        },
        dtype=object,
    )


def write_searches(folder: Path) -> pd.DataFrame:
    """Write searches.csv and searches.md of a bench from the folders of its searches alone; the table as text."""
    benches = read_searches(folder)
    frame, metric = searches_frame(benches), benches[0].task.headline
    table = shown_searches(frame, metric)
    note = (
        f"Choosing and refitting repeated {len(benches)} times with disjoint seeds: mean ± sd between searches of the refits' test "
        f"{metric.phrase}; vs KD with Student's 95 % interval over searches. settings: how many different ones were chosen."
    )
    write_bytes(folder / TABLE, as_csv(frame))
    write_bytes(folder / PAGE, ("\n".join([f"# {folder.resolve().name}: searches", "", *markdown_table(table), "", note]) + "\n").encode())
    return table
