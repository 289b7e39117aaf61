"""Locks of the operating system, which go with the process that holds them, however it ends. Free of torch."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from kdzoo.runs.atomic import StoreError

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""what a file system answers that has no locks"""


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock that a file stands for; yields False where another process holds it and this one is not to wait.

    Raises StoreError where the file cannot be made, or its file system has no locks.
    """
    lock = FileLock(path, mode=0o666)  # it holds nothing, and whoever may write the folder has to be able to take it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        yield False
        return
    except OSError as error:
        advice = "; put the results and KDZOO_CACHE on a file system that has locks (flock)" if error.errno in WITHOUT_LOCKS else ""
        raise StoreError(f"cannot lock {path}: {error.strerror}{advice}") from error
    try:
        yield True
    finally:
        lock.release()
