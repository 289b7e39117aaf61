"""Leases of filelock's, which go stale without signs of life: a worker's on a job, a driver's on its bench. Free of torch."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import SoftFileLockProtocolError, SoftReadWriteLock, Timeout

from kdzoo.errors import InputError
from kdzoo.runs.atomic import UNFINISHED, StoreError, ensure_writable, write_bytes
from kdzoo.runs.fence import Fence
from kdzoo.suite.run.work_folder import JobFolder, WorkFolder

HEARTBEATS = 5
"""signs of life within a lease"""


class Claim:
    """A claim on one job, to be asked for again and again: how long another's lease shows no life is counted between the calls."""

    def __init__(self, folder: JobFolder, token: str, lease_seconds: float) -> None:
        self._folder, self._token = folder, token
        self._lock = lease(folder.claim, lease_seconds)

    def take(self) -> Fence | None:
        """Claim the job; None while another worker has it, or where it is gone. The fence of this claim then shuts out all earlier ones.

        Raises InputError where the folder takes no hard links, and StoreError where the claim cannot be written.
        """
        try:
            self._lock.acquire_write(blocking=False)
        except Timeout:
            return None
        except (OSError, SoftFileLockProtocolError) as error:
            if not self._folder.exists():  # the driver has just removed it
                return None
            ensure_hard_links(self._folder.path)
            raise StoreError(f"cannot claim {self._folder.path}: {getattr(error, 'strerror', None) or error}") from error
        mark = f"{self._token} {self._lock.generation} {socket.gethostname()}-{os.getpid()}"
        try:
            write_bytes(self._folder.path / "claimed", mark.encode())
        except StoreError:
            self.give_back()
            raise
        return self._folder.fence(mark)

    @property
    def is_lost(self) -> bool:
        """Whether another worker may have taken the job over, since this process gave no sign of life."""
        return self._lock.compromise is not None

    def give_back(self) -> None:
        with contextlib.suppress(OSError, SoftFileLockProtocolError):  # the driver may have removed the job that it saw end
            self._lock.release()


class DriverWatch:
    """Looks, again and again, whether a driver is there that may publish further jobs."""

    def __init__(self, work: WorkFolder, lease_seconds: float) -> None:
        self._work, self._lock = work, lease(work.driver, lease_seconds)

    def is_there(self) -> bool:
        """Whether some driver has shown a sign of life within its lease."""
        if not self._work.has_driver():  # to ask for the lease would make them
            return False
        try:
            self._lock.acquire_write(blocking=False)
        except Timeout:
            return True
        except (OSError, SoftFileLockProtocolError):  # it has just ended, and removed its folder
            return False
        self._release()
        return False

    def clear(self) -> None:
        """Remove the lease and the empty folder of work that a driver left, where it is gone and no job is left."""
        if self._work.jobs() or not self._work.has_driver():
            return
        try:
            self._lock.acquire_write(blocking=False)  # held while the files go, so that no driver begins on them
        except (Timeout, OSError, SoftFileLockProtocolError):
            return
        shutil.rmtree(self._work.leases, ignore_errors=True)
        self._release()
        with contextlib.suppress(OSError):  # another worker, or a driver that has just begun, has files there
            self._work.path.rmdir()

    def _release(self) -> None:
        with contextlib.suppress(OSError, SoftFileLockProtocolError):
            self._lock.release()


@contextlib.contextmanager
def driving(work: WorkFolder, lease_seconds: float) -> Iterator[None]:
    """Show workers that further jobs may come; several drivers may.

    Raises InputError where the folder takes no file or no hard link, and StoreError where the lease cannot be written.
    """
    ensure_writable(work.path)
    ensure_hard_links(work.path)
    lock = lease(work.driver, lease_seconds)
    try:
        lock.acquire_read(blocking=True)
    except OSError as error:
        raise StoreError(f"cannot write {work.leases}: {error.strerror}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError, SoftFileLockProtocolError):
            lock.release()


def ensure_hard_links(folder: Path) -> None:
    """Prove that a folder takes hard links, by which leases are made; raises InputError otherwise, StoreError where it takes no file."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".link.", suffix=UNFINISHED) as file:
            other = Path(f"{file.name}-2")
            try:
                os.link(file.name, other)
            except (OSError, NotImplementedError) as error:
                reason = getattr(error, "strerror", None) or error
                raise InputError(
                    f"launcher: {folder} takes no hard links ({reason}), by which workers on several machines agree who has which job; put "
                    "the results on a file system that has them (ext4, XFS, NFS), or train on this machine alone with --launcher local"
                ) from error
            other.unlink()
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror}") from error


def lease(file: Path, seconds: float) -> SoftReadWriteLock:
    """A lease that goes stale after so many seconds without a sign of life, as others count them."""
    return SoftReadWriteLock(
        file, blocking=False, is_singleton=False, heartbeat_interval=seconds / HEARTBEATS, stale_threshold=seconds, poll_interval=0.1
    )
