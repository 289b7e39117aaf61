"""How a bench and a run are named on the command line. Free of torch."""

from __future__ import annotations

import re
from pathlib import Path

from kdzoo.errors import InputError, unknown
from kdzoo.store import RunFolder, Store, teacher_store

RUN_ID = re.compile(r"^[\w+]+-[0-9a-f]{12}$")


def benches(results: Path) -> list[Path]:
    """Every folder below `results` that holds runs, in order."""
    return sorted(path.parent for path in results.glob("*/runs")) if results.is_dir() else []


def bench_folder(name: str, results: Path) -> Path:
    """A bench by its name below `results`, or by its path; raises InputError with the nearest name."""
    for folder in (results / name, Path(name)):
        if (folder / "runs").is_dir():
            return folder
    raise InputError(f"{unknown('bench', name, [path.name for path in benches(results)])}; looked below {results}")


def run_folder(name: str, results: Path) -> RunFolder:
    """A run by its folder, its run.json, or its id in any bench below `results` or among the teachers."""
    path = Path(name)
    if path.name == "run.json":
        path = path.parent
    if (path / "run.json").is_file():
        return RunFolder(path.resolve())
    stores = [*map(Store, benches(results)), teacher_store()]
    for store in stores:
        if (store.run(name).path / "run.json").is_file():
            return store.run(name)
    known = [run_id for store in stores for run_id in store.ids()]
    raise InputError(f"{unknown('run', name, known, show=3)}; looked below {results} and among the teachers")
