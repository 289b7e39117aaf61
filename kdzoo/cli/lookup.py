"""How a bench and a run are named on the command line. Free of torch."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

from kdzoo.errors import InputError, collect_problems, unknown
from kdzoo.runs.store import RunFolder, Store, teacher_store
from kdzoo.suite.plan.starts import LOOKED_FOR, is_bench

RUN_ID = re.compile(r"^[\w+]+-[0-9a-f]{12}$")


def benches(results: Path) -> list[Path]:
    """Every bench below `results`, in order."""
    return sorted(filter(is_bench, results.glob("*/")))


def bench_folder(name: str, results: Path) -> Path:
    """A bench by its name below `results`, or by its path; raises InputError with the nearest name."""
    if not name:
        raise InputError(f"bench: expected a name or a folder, got ''; {search_hint(results)}")
    for folder in (results / name, Path(name)):
        if is_bench(folder):
            return folder
    if inside := [path.name for path in benches(Path(name))]:
        use = f"use --results {shlex.quote(name)}, or {shlex.quote(str(Path(name) / inside[0]))}"
        raise InputError(f"bench: {name} is a folder of benches ({', '.join(inside)}): {use}")
    for folder in (Path(name), results / name):  # as it was given, before a place below results that has the same name
        if folder.is_dir():
            raise InputError(f"bench: {folder} is a folder, but no bench (looked for {LOOKED_FOR} in it); {search_hint(results)}")
    raise InputError(f"{unknown('bench', name, [path.name for path in benches(results)])}; {search_hint(results)}")


def search_hint(results: Path, besides: str = "") -> str:
    """Where benches were looked for, and `besides`, and how to look elsewhere; names the folders near that hold some."""
    elsewhere = [path for path in folders_of_benches(results) if path.resolve() != results.resolve()]
    hint = f"--results {shlex.quote(str(elsewhere[0]))}" if len(elsewhere) == 1 else "--results FOLDER"
    others = f" ({', '.join(map(str, elsewhere))} hold benches)" if len(elsewhere) > 1 else ""
    return f"looked in {results}{besides}; for benches elsewhere use {hint}{others}"


def folders_of_benches(results: Path) -> list[Path]:
    """The folders here, and beside `results`, that hold benches, as one would name them; where there are none, those a level deeper."""
    teachers = teacher_store().folder.resolve()
    for depth in ("*/", "*/*/"):
        places = dict.fromkeys(path for place in (Path(), results.parent) for path in sorted(place.glob(depth)))
        if found := [path for path in places if any(bench.resolve() != teachers for bench in benches(path))]:
            return found
    return []


def choose_bench(name: str | None, results: Path, command: str) -> Path:
    """A bench by its name, or the only one below `results` without; raises InputError that lists them where there are several."""
    if name is not None:
        return bench_folder(name, results)
    folders = benches(results)
    if len(folders) == 1:
        return folders[0]
    if not folders:
        raise InputError(f"{command}: no benches; {search_hint(results)}")
    raise InputError(f"{command}: name a bench; {results} has: {', '.join(path.name for path in folders)}")


def find_all(names: Iterable[str], results: Path, find: Callable[[str, Path], Path]) -> list[Path]:
    """Where each name leads; raises InputError with all that lead nowhere."""
    problems: list[str] = []
    places: list[Path] = []
    for name in names:
        with collect_problems(problems):
            places.append(find(name, results))
    if problems:
        raise InputError(*problems)
    return places


def _example(bench: Path) -> str:
    """A run of a bench that is done, the best on validation, as words at the end of a message; empty where none is done."""
    from kdzoo.suite.report.records import Record, read_record  # here: no other look-up reads results

    done: list[tuple[float, Record]] = []
    for run_id in Store(bench).ids():
        with collect_problems([]):
            record = read_record(Store(bench).run(run_id))
            if record.state == "done":
                done.append((record.task.headline.sign * (record.headline("val") or 0.0), record))
    if not done:
        return ""
    best = max(done, key=lambda pair: pair[0])[1]
    return f", for example {bench / 'runs' / best.id}"


def run_folder(name: str, results: Path) -> RunFolder:
    """A run by its folder, its run.json, or its id in any bench below `results` or among the teachers."""
    path = Path(name)
    if path.name == "run.json":
        path = path.parent
    if (path / "run.json").is_file():
        return RunFolder(path.resolve())
    for bench in (path, results / name):
        if is_bench(bench):
            ids = f"`kdzoo status {shlex.quote(str(bench))} --json` lists their ids"
            raise InputError(f"run: {name} is a bench, not one of its runs; {ids}{_example(bench)}")
    stores = [*map(Store, benches(results)), teacher_store()]
    for store in stores:
        if (store.run(name).path / "run.json").is_file():
            return store.run(name)
    known = [run_id for store in stores for run_id in store.ids()]
    raise InputError(f"{unknown('run', name, known, show=3)}; {search_hint(results, besides=' and among the teachers')}")
