"""Facts read from files, kept in the cache where the files are too many to be read at every start."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kdzoo.files import cache_folder
from kdzoo.runs.seals import DamagedFile, read_sealed, write_sealed

FILES_PER_TASK = 64
"""files that a thread reads at a time"""

Row = list[Any]
"""what is found in a file, as JSON has it"""


def read_all(paths: Sequence[str], read: Callable[[str], Row]) -> list[Row]:
    """What `read` gives for every file, in order; files are read in threads."""

    def several(start: int) -> list[Row]:
        return [read(path) for path in paths[start : start + FILES_PER_TASK]]

    with ThreadPoolExecutor() as pool:
        return [one for part in pool.map(several, range(0, len(paths), FILES_PER_TASK)) for one in part]


def read_changed(folder: Path, paths: Sequence[str], read: Callable[[str], Row], version: str) -> list[Row]:
    """The same; for a file whose size and time of change are as they were, the row that the cache has of this `version` of `read`.

    Only for files that are checked against their digest whenever they are read.
    """
    name = hashlib.blake2b(os.fsencode(folder.resolve()), digest_size=8).hexdigest()
    memory = cache_folder() / "data" / f"files-{name}.json"
    owner = f"{memory.name} {version}"
    try:
        by_stamp: dict[str, Row] = json.loads(read_sealed(memory, owner))
    except (FileNotFoundError, DamagedFile):
        by_stamp = {}
    stamps = [f"{status.st_size} {status.st_mtime_ns} {path}" for path in paths for status in [os.stat(path)]]
    changed = [path for path, stamp in zip(paths, stamps, strict=True) if stamp not in by_stamp]
    if changed:
        rows = dict(zip(changed, read_all(changed, read), strict=True))
        by_stamp = {stamp: rows[path] if path in rows else by_stamp[stamp] for path, stamp in zip(paths, stamps, strict=True)}
        write_sealed(memory, json.dumps(by_stamp, separators=(",", ":")).encode(), owner)
    return [by_stamp[stamp] for stamp in stamps]
