"""`kdzoo status`: where a bench stands, read off its run folders. Free of torch."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ValidationError
from rich.console import Console

from kdzoo.cli import complete
from kdzoo.cli.cells import duration
from kdzoo.cli.declare import argument, option
from kdzoo.cli.lookup import bench_folder, benches, search_hint
from kdzoo.cli.options import JsonOnly, ResultsFolder
from kdzoo.cli.output import console, print_json, print_text
from kdzoo.cli.table import Column, Format, field, metric_column, print_rows, table_parts
from kdzoo.cli.watch import Part, View, print_parts, watch
from kdzoo.errors import InputError, raise_if_any
from kdzoo.files import read_file
from kdzoo.runs.atomic import StoreError
from kdzoo.runs.store import RunFolder, Store, teacher_store
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.refit import wants_refit
from kdzoo.suite.plan.starts import read_starts
from kdzoo.suite.report.records import Record, read_record
from kdzoo.suite.report.settings import setting_text
from kdzoo.suite.run.wording import label_words
from kdzoo.text import number_of, one_line

if TYPE_CHECKING:
    from kdzoo.suite.report.bench import BenchRecords
    from kdzoo.tasks.task import Metric

WORDS = {"done": "done", "failed": "failed", "damaged": "damaged", "started": "interrupted", "paused": "paused", "new": "to do"}
CLOCK = "%Y-%m-%dT%H:%M:%SZ"
"""how moments are written, in UTC"""
OVER = ("done", "failed", "damaged", "paused")
ORDER = ("running", "failed", "damaged", "interrupted", "to do", "paused", "done")

DONE_COLUMNS = ("method", "done", "settings", "seeds", "phase", "pair")

PLANNING_SECONDS = 60.0
"""how long a bench that is watched may take until it has a folder"""
WAIT_SECONDS = 0.5
"""between two looks for it"""

Watch = Annotated[
    bool,
    option("--watch", text="Show it again every few seconds, with the time left, until no run is left; Ctrl-C ends it.", default="off"),
]


def status(
    bench: Annotated[
        str | None,
        argument("A bench's name below --results, or its folder.", metavar="BENCH", default="all benches", names_of=complete.bench_names),
    ] = None,
    results: ResultsFolder = Path("results"),
    as_json: JsonOnly = False,
    watching: Watch = False,
) -> int:
    """Show which runs are done, running, failed (and why) and still to do, and when those that run were last heard of.

    A run counts as running while some process holds its lock; interrupted ones resume from their checkpoints when the
    bench is started again. Paused ones were left by a search within a budget, and resume in a bench without one.

    \b
    Examples:
      kdzoo status
      kdzoo status digits --json
      kdzoo status digits --watch
    """
    raise_if_any(["watch: not together with --json" if watching and as_json else None])
    screen = console()
    if watching:
        if bench is not None:
            _await_bench(bench, results)
        watch(lambda: _benches_view(results, screen) if bench is None else _bench_view(bench_folder(bench, results), screen), screen)
    elif bench is None:
        rows = _bench_rows(_statuses(results))
        if rows or as_json:
            print_rows(rows, Format.json if as_json else Format.table, names=("bench", *ORDER))
        else:
            print_text(f"no benches; {search_hint(results)}")
    elif as_json:
        print_json(bench_status(_read_bench(bench_folder(bench, results))))
    else:
        records = _read_bench(bench_folder(bench, results))
        current = bench_status(records)
        shown = [*current["teachers"], *_not_done(current)]
        print_parts([_summary(current), *_parts(current, shown, records.task.headline, screen)])
    return 0


def _await_bench(name: str, results: Path) -> None:
    """Wait for a bench whose command has just been given, and which is planned before it has a folder.

    Raises InputError where none comes, and at once for a folder of several.
    """
    deadline = time.monotonic() + PLANNING_SECONDS
    for attempt in itertools.count():
        try:
            bench_folder(name, results)
            return
        except InputError:
            if time.monotonic() > deadline or benches(Path(name)):
                raise
        if attempt == 0:
            print_text(f"{name}: no such bench yet below {results}; waiting {PLANNING_SECONDS:.0f} seconds for one to be planned")
        time.sleep(WAIT_SECONDS)


def _statuses(results: Path) -> list[dict[str, Any]]:
    """What `bench_status` says of every bench."""
    return [bench_status(_read_bench(folder)) for folder in benches(results)]


def _read_bench(folder: Path) -> BenchRecords:
    from kdzoo.suite.report.bench import read_bench  # here, since it brings pandas, which no other command waits for

    return read_bench(folder)


def _bench_rows(statuses: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many runs of every bench are in which state."""
    return [{"bench": Path(current["folder"]).name, **current["counts"]} for current in statuses]


def _benches_view(results: Path, screen: Console) -> View:
    statuses = _statuses(results)
    rows = _bench_rows(statuses)
    counts = {state: sum(row[state] for row in rows) for state in ORDER}
    over = sum(counts[state] for state in OVER)
    table = table_parts(rows, [field(name) for name in ("bench", *ORDER)], screen) if rows else [f"no benches; {search_hint(results)}"]
    total = sum(counts.values())
    summary = f"{number_of(len(rows), 'bench', 'benches')}: {_count_words(counts)}"
    return View(summary, table, over / max(total, 1), over == total, any(map(_is_running, statuses)))


def _bench_view(folder: Path, screen: Console) -> View:
    """A bench with the runs that are neither done nor still to do."""
    records = _read_bench(folder)
    current = bench_status(records)
    waiting = sum(row["state"] not in OVER for row in [*current["runs"], *current["teachers"]])
    rows = [row for row in [*current["teachers"], *_not_done(current)] if row["state"] not in ("done", "to do")]
    epochs = [(1, 1) if row["state"] in OVER else tuple(map(int, row["epoch"].split("/"))) for row in current["runs"]]
    share = sum(done / max(whole, 1) for done, whole in epochs) / max(len(epochs), 1)
    is_over = not waiting and not _search_goes_on(records) and not _refit_is_due(records, current)
    return View(_summary(current), _parts(current, rows, records.task.headline, screen), share, is_over, _is_running(current))


def _is_running(current: Mapping[str, Any]) -> bool:
    """Whether a process trains a run of a bench, its teacher, or the first stage of a run, which has no row."""
    if any(row["state"] == "running" for row in [*current["runs"], *current["teachers"]]):
        return True
    store, student_ids = Store(Path(current["folder"])), {row["id"] for row in current["runs"]}
    return any(is_locked(store.run(run_id)) for run_id in store.ids() if run_id not in student_ids)


def _search_goes_on(bench: BenchRecords) -> bool:
    """Whether a search within a budget has come to the end of a rung, but not to whole runs."""
    states = {record.state for record in bench.records}
    return "paused" in states and "done" not in states


def _refit_is_due(bench: BenchRecords, current: Mapping[str, Any]) -> bool:
    """Whether a sweep that came out well is going to be trained again on all images, and that is not planned yet."""
    try:
        starts = read_starts(bench.folder)
        if not starts or current["counts"]["failed"]:
            return False
        planned = set(starts[-1].runs)
        has_refit = any(record.table_key.phase == "refit" for record in bench.records if record.id in planned)
        return not has_refit and wants_refit(BenchConfig.model_validate(starts[-1].config))
    except (InputError, ValidationError):  # a damaged file, keys of another version, a recipe of a plugin
        return False


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
        "last_heard": _last_heard(folder) if state in ("running", "interrupted") else None,
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
        with contextlib.suppress(StoreError), folder.lock() as free:  # a folder of somebody else's cannot be asked
            return not free
    return False


def _last_heard(folder: RunFolder) -> str:
    """When a run last gave a sign of life: of training every 50 steps and at an epoch's end, or of a file that was written."""
    return datetime.fromtimestamp(folder.last_sign_of_life(), UTC).strftime(CLOCK)


def _ago(row: Mapping[str, Any]) -> str:
    """How long ago that was; empty where it says nothing."""
    if row["last_heard"] is None:
        return ""
    then = datetime.strptime(row["last_heard"], CLOCK).replace(tzinfo=UTC)
    return f"{duration(max((datetime.now(UTC) - then).total_seconds(), 0.0))} ago"


def _epochs(folder: RunFolder) -> int:
    """How many epochs a run has completed."""
    try:
        return read_file(folder.metrics).count(b"\n")
    except OSError:  # none yet, or no plain file
        return 0


def _counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    counts = Counter(row["state"] for row in rows)
    return {state: counts[state] for state in ORDER}


def _count_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in counts.items() if number) or "no runs"


def _summary(bench: Mapping[str, Any]) -> str:
    return one_line(f"{bench['bench']}: {_count_words(bench['counts'])}")


def _not_done(bench: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [row for row in bench["runs"] if row["state"] != "done"]


def done_rows(bench: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How much of each method is done, in the order of their names, by pair and phase where there are several; the teachers first."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in sorted(bench["runs"], key=lambda row: (str(row["pair"]), row["phase"] == "refit", row["method"])):
        groups.setdefault((row["method"], str(row["pair"]), str(row["phase"])), []).append(row)
    rows = [(("teacher", str(row["pair"]), "train"), [row]) for row in bench["teachers"]] + list(groups.items())
    return [
        {
            "method": label_words(method),
            "done": sum(row["state"] == "done" for row in runs),
            "settings": len({row["setting"] for row in runs}),
            "seeds": len({row["seed"] for row in runs}),
            "phase": phase,
            "pair": pair,
        }
        for (method, pair, phase), runs in rows
    ]


def _parts(bench: Mapping[str, Any], shown: Sequence[Mapping[str, Any]], headline: Metric, screen: Console) -> list[Part]:
    """Runs as a table, of a bench that is done how much of each method there is; why some failed, notes, and what can be done."""
    parts: list[Part] = []
    if not _not_done(bench):
        parts += table_parts(done_rows(bench), [field(name) for name in DONE_COLUMNS], screen)
    elif shown:
        first, last = (list(map(field, names)) for names in (("id", "state", "epoch"), ("method", "setting", "seed", "pair")))
        heard = [Column("last heard", _ago)] if any(row["last_heard"] for row in shown) else []
        parts += table_parts(shown, [*first, *heard, metric_column("val", headline), *last], screen)  # the most important first
    parts += [one_line(f"{row['id']}: {row['reason']}") for row in shown if row["reason"]]
    parts += [one_line(f"note: {note}") for note in bench["notes"]]
    if bench["counts"]["failed"]:
        parts.append("the same `kdzoo bench` with --retry-failed trains the failed runs again; each run's error.txt has the traceback")
    elif bench["counts"]["to do"] or bench["counts"]["interrupted"]:
        parts.append("run the same `kdzoo bench` to resume")
    if bench["counts"]["done"]:
        so_far = "" if bench["counts"]["done"] == len(bench["runs"]) else " so far"
        parts.append(f"the table{so_far}: {shlex.join(['kdzoo', 'leaderboard', bench['folder']])}")
    return parts
