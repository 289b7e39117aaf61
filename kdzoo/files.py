"""Where kdzoo's own files and its cache lie, and reading from folders that somebody else may have written to. Free of torch."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from kdzoo.errors import InputError

PACKAGE = Path(__file__).resolve().parent
"""kdzoo's own folder"""
CONFIGS = PACKAGE / "configs"

LARGEST_RECORD = 1 << 28
"""bytes of a file that is read whole: a record of a run is a few kilobytes, its metrics a few megabytes"""


def cache_folder() -> Path:
    """Where teachers, decoded images and downloaded data are kept: KDZOO_CACHE, else `kdzoo` in the user's cache folder."""
    folder = os.environ.get("KDZOO_CACHE")
    return Path(folder) if folder else user_cache() / "kdzoo"


def user_cache() -> Path:
    """The user's folder for caches: XDG_CACHE_HOME, else `.cache` in the home folder; raises InputError where there is none."""
    folder = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(folder) if folder else Path.home() / ".cache"
    except RuntimeError:
        raise InputError("cache: this user has no home folder; set KDZOO_CACHE to a folder that can be written") from None


def is_plain(mode: int) -> bool:
    """Whether a mode (`st_mode`) is that of a plain file: not a folder, a link, a pipe, a socket or a device."""
    return stat.S_ISREG(mode)


def kind_of(mode: int) -> str:
    """What a mode (`st_mode`) is of, in words: `a folder`."""
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a link that leads nowhere",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def plain_status(path: Path) -> os.stat_result | None:
    """The status of a plain file, links not followed; None where there is none."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status if is_plain(status.st_mode) else None


MORE_BYTES = 2**16
"""read at a time of what a file has more than it said"""


def read_file(path: Path | str, limit: int = LARGEST_RECORD) -> bytes:
    """The bytes of a plain file.

    Raises OSError for what is none (a pipe, a device or a socket would never end, a folder has no bytes) and for a file of
    more than `limit` bytes, and FileNotFoundError where there is nothing.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe without a writer must not make it wait
    try:  # without a file object, since a table reads thousands of files whole
        status = os.fstat(descriptor)
        if not is_plain(status.st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
        content = os.read(descriptor, status.st_size + 1)
        while more := os.read(descriptor, MORE_BYTES):
            content += more
        return content
    finally:
        os.close(descriptor)


def read_text(path: Path) -> str:
    """The text of a plain file, with what is no UTF-8 replaced; raises OSError as `read_file` does."""
    return read_file(path).decode(errors="replace")
