"""Where teacher caches lie on disk: their folders, how files are mapped, and how old ones make room for new ones."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import shutil
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdzoo.files import cache_folder, plain_status
from kdzoo.runs.atomic import set_aside, write_json
from kdzoo.runs.canonical import canonical_json
from kdzoo.runs.locks import file_lock

AUTO_SHARE = 0.25
"""the share of the machine's memory, of free GPU memory and of the free disk that a cache may take unless a size is given"""

UNSAFE = re.compile(r"[^\w.+-]")
"""characters of a teacher's name that become `_` in a folder's"""

REMOVED = ".removed"
"""ends the name of a cache that is on its way out: nobody finds half of one under its own name"""


def digest_of(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(about).encode()).hexdigest()


def folder_of(about: Mapping[str, Any], name: str) -> Path:
    """The folder of the cache that `about` describes."""
    return cache_folder() / "teacher-cache" / f"{UNSAFE.sub('_', name)}-{digest_of(about)[:16]}"


def mark_opened(folder: Path, about: Mapping[str, Any]) -> list[str]:
    """Write the record of what decides a cache's rows, with the time of opening; returns notes on faults of the earlier record."""
    file, notes = folder / "about.json", []
    odd = set_aside_unless_file(file)
    if file.exists() and _read_json(file) != json.loads(canonical_json(about)):
        odd = True
        set_aside(file)
    if odd:
        notes.append(f"the teacher cache: {file} was damaged and is written again")
    if not file.exists():
        write_json(file, about)
    touch(folder)
    return notes


def _read_json(file: Path) -> Any:
    """The content of a JSON file; None where it has none."""
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return None


def touch(folder: Path) -> None:
    """Mark a cache as in use, unless another process has just removed it."""
    with suppress(FileNotFoundError):
        os.utime(folder / "about.json")


def set_aside_unless_file(path: Path) -> bool:
    """Rename what stands in the place of a plain file (a folder, a pipe, a link); returns whether there was any."""
    other = os.path.lexists(path) and plain_status(path) is None
    if other:
        set_aside(path)
    return other


PAGE = 4096
"""disk space of a file is taken in pieces of so many bytes"""


class MappedFile:
    """A file of zeros mapped into memory, whose disk space is taken as rows of it are reserved.

    values: the rows, (N, ...). problem: what was wrong, in words, with the file that was there before; None for nothing.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        """Map a file, made anew where it is not there or is not of this size."""
        size, self.problem = dtype.itemsize * math.prod(shape), None
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path.with_suffix(f"{path.suffix}.lock")):
            if set_aside_unless_file(path):
                self.problem = "was damaged (not a file)"
            elif path.exists() and (length := path.stat().st_size) != size:
                self.problem = f"was damaged ({length:,} bytes for {size:,})"
            if self.problem or not path.exists():
                _make_zeros(path, size)
            self._descriptor = os.open(path, os.O_RDWR)
        weakref.finalize(self, os.close, self._descriptor)
        with os.fdopen(os.dup(self._descriptor), "r+b") as file:
            self.values: Any = np.memmap(file, dtype=dtype, mode="r+", shape=shape)
        self._row_bytes = dtype.itemsize * math.prod(shape[1:])
        self._reserved = np.zeros(-(-size // PAGE), dtype=bool)

    def reserve(self, rows: NDArray[np.int64]) -> None:
        """Take the disk space of these rows, in ascending order and without repeats; raises OSError where the disk is full.

        Writing to a mapped row without disk space would kill the process.
        """
        if not hasattr(os, "posix_fallocate"):  # macOS has no such call
            return
        for first, last in join_spans(rows * self._row_bytes // PAGE, ((rows + 1) * self._row_bytes - 1) // PAGE):
            if not self._reserved[first : last + 1].all():
                length = min((last + 1) * PAGE, self.values.nbytes) - first * PAGE
                os.posix_fallocate(self._descriptor, first * PAGE, length)
                self._reserved[first : last + 1] = True

    def flush(self) -> None:
        """Put what was written on disk; raises OSError where that fails."""
        self.values.flush()

    @property
    def inode(self) -> int:
        return os.fstat(self._descriptor).st_ino

    @property
    def disk_bytes(self) -> int:
        """The disk space that is taken."""
        return os.fstat(self._descriptor).st_blocks * STAT_BLOCK


STAT_BLOCK = 512
"""bytes of a block in a file's status, whatever the file system's are"""


def join_spans(first: NDArray[np.int64], last: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ranges of pages (first, last), ascending, with those joined that touch or overlap."""
    if not len(first):
        return []
    starts = np.flatnonzero(np.append(True, first[1:] > last[:-1] + 1))
    ends = np.append(starts[1:], len(first)) - 1
    return list(zip(first[starts].tolist(), last[ends].tolist(), strict=True))


def _make_zeros(path: Path, size: int) -> None:
    """Put a file of `size` zero bytes in a place, whole or not at all; it takes no disk space yet."""
    part = path.with_suffix(f"{path.suffix}.part")
    try:
        with part.open("wb") as file:
            file.truncate(size)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def free_bytes(folder: Path, device: torch.device) -> int:
    """A share of what is free where a cache would lie."""
    parent_folder = next(parent for parent in folder.parents if parent.exists())
    spaces = [shutil.disk_usage(parent_folder).free + _disk_space(folder)]
    if device.type == "cuda":
        spaces.append(torch.cuda.mem_get_info(device)[0])
    spaces.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return int(AUTO_SHARE * min(spaces))


def _disk_space(folder: Path) -> int:
    """The disk space of a cache's files; another process may be removing them."""
    return sum(status.st_blocks * STAT_BLOCK for file in folder.glob("*") if (status := plain_status(file)) is not None)


def make_room(folder: Path, limit: int) -> None:
    """Remove the caches that were not in use for longest, until all but this one fit into `limit` bytes.

    One that another process has open stays usable for that process until it ends.
    """
    statuses = {path.parent: plain_status(path) for path in folder.parent.glob("*/about.json") if path.parent != folder}
    last_use = {other: 0.0 if status is None else status.st_mtime for other, status in statuses.items()}
    total = 0
    for other in sorted(last_use, key=lambda other: -last_use[other]):
        total += _disk_space(other)
        if total > limit or other.name.endswith(REMOVED):
            remove(other)


def remove(folder: Path) -> None:
    """Remove a cache, first from under its name: whoever opens one there begins a new one, and finds no half of the old."""
    trash = folder.with_name(f"{folder.name}-{secrets.token_hex(4)}{REMOVED}")
    try:
        folder.rename(trash)
    except FileNotFoundError:  # another process was faster
        return
    shutil.rmtree(trash, ignore_errors=True)


def size_text(count: int) -> str:
    """A number of bytes in GB, MB or kB, whichever has a digit before its point."""
    for unit, size in (("GB", 1024**3), ("MB", 1024**2)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1024:.1f} kB"
