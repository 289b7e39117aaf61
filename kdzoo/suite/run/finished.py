"""Which benches are trained to the end, and what they were planned from, so that the same command knows at once that nothing is left.

The record is kept in the cache folder. As `make` does, it takes a file of the same size and time for unchanged. Free of torch.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kdzoo.files import PACKAGE, cache_folder, read_file
from kdzoo.runs.atomic import write_json
from kdzoo.runs.canonical import canonical_json
from kdzoo.runs.store import Store
from kdzoo.suite.plan.config import BenchConfig

PACKAGES = ("scikit-learn", "timm")
"""whose versions a plan depends on: scikit-learn ships the digits, timm the networks"""


def finished_runs(config: BenchConfig) -> tuple[str, ...] | None:
    """The runs of a bench that are all done, where nothing that its plan was made from has changed; else None."""
    try:
        record = json.loads(read_file(_file(config)))
        same = record["code"] == _code() and record["packages"] == _packages() and record["held"] == _digest(_runs_in_folder(config))
        if not same or any(stamp(Path(path)) != before for path, before in record["files"].items()):
            return None
        runs = tuple(map(str, record["runs"]))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # none yet, or not whole: it is written again after the plan
        return None
    store = Store(_folder(config))
    return runs if runs and all(store.run(run_id).state() == "done" for run_id in runs) else None


def keep_finished(config: BenchConfig, runs: Iterable[str], files: Iterable[Path]) -> None:
    """Record that these runs of a bench are done. files: all that its plan was made from; of folders, all files in them."""
    content = {
        "bench": str(_folder(config).resolve()),
        "code": _code(),
        "packages": _packages(),
        "held": _digest(_runs_in_folder(config)),
        "files": {str(path.resolve()): stamp(path) for path in files},
        "runs": sorted(runs),
    }
    write_json(_file(config), content)


def stamp(path: Path) -> str:
    """What changes when a file or a folder does: size and time, of all files in it; `gone` where there is nothing."""
    if path.is_dir():
        files = sorted(Path(folder) / name for folder, _, names in os.walk(path) for name in names)
        return _digest([f"{file.relative_to(path)} {stamp(file)}" for file in files])
    try:
        status = path.stat()
    except OSError:
        return "gone"
    return f"{status.st_size} {status.st_mtime_ns}"


def _folder(config: BenchConfig) -> Path:
    return Path(config.results) / config.name


def _file(config: BenchConfig) -> Path:
    """One for each bench's folder and configuration."""
    key = canonical_json({"folder": str(_folder(config).resolve()), "config": config.model_dump(mode="json")})
    return cache_folder() / "finished" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _runs_in_folder(config: BenchConfig) -> list[str]:
    """All runs in the bench's folder: a refit takes the seeds that none of them has."""
    return Store(_folder(config)).ids()


def _code() -> str:
    """kdzoo's own files: a new version of a method plans other runs."""
    root = PACKAGE
    files = sorted(file for ending in ("py", "yaml", "json") for file in root.rglob(f"*.{ending}"))
    return _digest([f"{file.relative_to(root)} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files])


def code_stamp() -> str:
    """What changes when somebody edits or updates kdzoo: sizes and times of its own files, without reading them."""
    return _digest(f"{file.relative_to(PACKAGE)} {stamp(file)}" for file in sorted(PACKAGE.rglob("*.py")))


def _packages() -> dict[str, Any]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
