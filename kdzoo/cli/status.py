"""`kdzoo status`: where a bench stands, read off its run folders. Free of torch."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from kdzoo.cli import complete
from kdzoo.cli.declare import argument
from kdzoo.cli.lookup import bench_folder, benches, search_hint
from kdzoo.cli.options import JsonOnly, ResultsFolder
from kdzoo.cli.output import print_json, print_text
from kdzoo.cli.table import Format, field, metric_column, print_rows
from kdzoo.files import read_file
from kdzoo.runs.store import RunFolder, Store, teacher_store
from kdzoo.suite.report.records import Record, read_record
from kdzoo.suite.report.settings import setting_text
from kdzoo.text import one_line

if TYPE_CHECKING:
    from kdzoo.suite.report.bench import BenchRecords
    from kdzoo.tasks.task import Metric

WORDS = {"done": "done", "failed": "failed", "damaged": "damaged", "started": "interrupted", "new": "to do"}
ORDER = ("running", "failed", "damaged", "interrupted", "to do", "done")


def status(
    bench: Annotated[
        str | None,
        argument("A bench's name below --results, or its folder.", metavar="BENCH", default="all benches", names_of=complete.bench_names),
    ] = None,
    results: ResultsFolder = Path("results"),
    as_json: JsonOnly = False,
) -> int:
    """Show which runs are done, running, failed (and why) and still to do.

    A run counts as running while some process holds its lock; interrupted ones resume from their checkpoints when the
    bench is started again.

    \b
    Examples:
      kdzoo status
      kdzoo status digits --json
    """
    from kdzoo.suite.report.bench import read_bench  # here, since it brings pandas, which no other command waits for

    if bench is None:
        rows = [{"bench": folder.name, **_counts(bench_status(read_bench(folder))["runs"])} for folder in benches(results)]
        if not rows and not as_json:
            print_text(f"no benches; {search_hint(results)}")
            return 0
        print_rows(rows, Format.json if as_json else Format.table, names=("bench", *ORDER))
        return 0
    records = read_bench(bench_folder(bench, results))
    current = bench_status(records)
    if as_json:
        print_json(current)
    else:
        _print_status(current, records.task.headline)
    return 0


def bench_status(bench: BenchRecords) -> dict[str, Any]:
    """Every run of a bench with its state and, where it failed, the reason; its teachers; what could not be read."""
    store = Store(bench.folder)
    runs = [_row(record, store.run(record.id)) for record in bench.records]
    return {
        "bench": bench.folder.resolve().name,
        "folder": str(bench.folder),
        "counts": _counts(runs),
        "runs": sorted(runs, key=lambda row: (ORDER.index(row["state"]), row["id"])),
        "teachers": _teachers(bench),
        "notes": list(bench.notes),
    }


def _row(record: Record, folder: RunFolder) -> dict[str, Any]:
    state = "running" if record.state != "done" and is_locked(folder) else WORDS[record.state]
    return {
        "id": record.id,
        "method": record.method,
        "setting": setting_text(record.run, record.about),
        "seed": record.run.seed,
        "pair": record.about.get("pair"),
        "phase": record.about.get("phase"),
        "state": state,
        "epoch": f"{_epochs(folder)}/{record.run.recipe.epochs}",
        f"val_{record.task.headline.name}": record.headline("val"),
        "reason": record.error,
    }


def _teachers(bench: BenchRecords) -> list[dict[str, Any]]:
    """The kept teachers that a bench's runs name, and how far they are."""
    ids = sorted({str(record.about["teacher_id"]) for record in bench.records if record.about.get("teacher_id")})
    folders = [teacher_store().run(run_id) for run_id in ids]
    rows = [_row(read_record(folder), folder) for folder in folders if (folder.path / "run.json").exists()]
    return [{**row, "method": "teacher", "setting": "teacher"} for row in rows]  # trained by cross-entropy alone, as `none` is


def is_locked(folder: RunFolder) -> bool:
    """Whether another process is training the run."""
    if (folder.path / ".lock").exists():
        with contextlib.suppress(OSError), folder.lock() as free:  # a folder of somebody else's cannot be asked
            return not free
    return False


def _epochs(folder: RunFolder) -> int:
    """How many whole epochs a run has behind it."""
    try:
        return read_file(folder.metrics).count(b"\n")
    except OSError:  # none yet, or no plain file
        return 0


def _counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    counts = Counter(row["state"] for row in rows)
    return {state: counts[state] for state in ORDER}


def _print_status(bench: dict[str, Any], headline: Metric) -> None:
    counts = ", ".join(f"{number} {state}" for state, number in bench["counts"].items() if number)
    print_text(one_line(f"{bench['bench']}: {counts or 'no runs'}"))
    open_runs = [row for row in bench["runs"] if row["state"] != "done"]
    shown = [*bench["teachers"], *open_runs]
    if shown:
        first, last = (list(map(field, names)) for names in (("id", "state", "epoch"), ("seed", "setting", "pair")))
        print_rows(shown, Format.table, columns=[*first, metric_column("val", headline), *last])  # the most important first
    for row in shown:
        if row["reason"]:
            print_text(one_line(f"{row['id']}: {row['reason']}"))
    for note in bench["notes"]:
        print_text(one_line(f"note: {note}"))
    if bench["counts"]["failed"]:
        print_text("the same `kdzoo bench` with --retry-failed trains the failed runs again; each run's error.txt has the traceback")
    elif bench["counts"]["to do"] or bench["counts"]["interrupted"]:
        print_text("run the same `kdzoo bench` to resume")
