"""The digests of files that are too many to be read at every start."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kdzoo.files import read_file
from kdzoo.store import cache_folder, write_bytes

TOGETHER = 64
"""files that a thread reads at a time"""


def digests(paths: Sequence[str], digest: Callable[[str], bytes]) -> list[bytes]:
    """The digest of every file, in order."""

    def several(start: int) -> list[bytes]:
        return [digest(path) for path in paths[start : start + TOGETHER]]

    with ThreadPoolExecutor() as pool:
        return [one for part in pool.map(several, range(0, len(paths), TOGETHER)) for one in part]


def remembered_digests(folder: Path, paths: Sequence[str], digest: Callable[[str], bytes]) -> list[bytes]:
    """The same; of a file whose size and time of change are as they were, the digest that the cache remembers.

    Only for files that are checked against their digest whenever they are read.
    """
    name = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()
    memory = cache_folder() / "data" / f"digests-{name}.json"
    known = _known(memory)
    stamped = [f"{status.st_size} {status.st_mtime_ns} {path}" for path in paths for status in [os.stat(path)]]
    fresh = [path for path, stamp in zip(paths, stamped, strict=True) if stamp not in known]
    if fresh:
        read = dict(zip(fresh, digests(fresh, digest), strict=True))
        known = {stamp: read[path].hex() if path in read else known[stamp] for path, stamp in zip(paths, stamped, strict=True)}
        write_bytes(memory, json.dumps(known).encode())
    return [bytes.fromhex(known[stamp]) for stamp in stamped]


def _known(memory: Path) -> dict[str, str]:
    """The digests (hex) that the cache remembers, by size, time of change and path; none where its file is missing or damaged."""
    try:
        known = json.loads(read_file(memory))
        return {str(stamp): bytes.fromhex(digest).hex() for stamp, digest in known.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
