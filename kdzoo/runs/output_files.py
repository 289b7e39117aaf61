"""Files and folders that a user names to be written: links are followed, and nothing but a plain file is replaced. Free of torch."""

from __future__ import annotations

import os
from pathlib import Path

from kdzoo.errors import InputError
from kdzoo.files import is_plain, kind_of
from kdzoo.runs.atomic import write_bytes

STANDARD = {1: "standard output", 2: "standard error"}
"""the descriptors that a program writes to: a file that is replaced is not the one that they lead to any more"""


def output_file(path: Path) -> Path:
    """Where the file lies that a user names to be written: what links lead to, which need not be there yet.

    Raises InputError for what is there and is no plain file, and for the file that is this process's standard output or error.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):  # a file that stands in for a folder is told by whoever writes
        return Path(os.path.realpath(path))
    except OSError as error:
        raise InputError(f"output: cannot write {path}: {error.strerror}") from error
    target = Path(os.path.realpath(path))
    what = f"{path} leads to {target}, which is" if path.is_symlink() else f"{path} is"
    if not is_plain(status.st_mode):
        instead = "name a file in it" if path.is_dir() else "expected a plain file, or a new name"
        raise InputError(f"output: {what} {kind_of(status.st_mode)}; {instead}")
    for descriptor, name in STANDARD.items():
        if _leads_to(descriptor, status):
            raise InputError(f"output: {path} is {name}; expected a file of its own")
    return target


def new_output_file(path: Path) -> Path:
    """The same of a file that must not be there yet; raises InputError where it is."""
    target = output_file(path)
    if target.exists():
        raise InputError(f"{path}: exists already; remove it, or name another file")
    return target


def _leads_to(descriptor: int, status: os.stat_result) -> bool:
    """Whether a descriptor of this process leads to the file of this status."""
    try:
        return os.path.samestat(status, os.fstat(descriptor))
    except OSError:  # closed
        return False


def write_output(path: Path, content: bytes) -> None:
    """Write a file that a user names, whole or not at all; raises InputError as `output_file` does, and StoreError as `write_bytes`."""
    write_bytes(output_file(path), content)


def fault_of_new_folder(folder: Path) -> str | None:
    """Why a folder that a user names to be written is not new or empty, in words that begin with its name; None where it is."""
    try:
        if folder.is_dir():
            return f"{folder} holds something already; name a new folder" if any(folder.iterdir()) else None
        status = folder.stat() if folder.exists() else folder.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror}"
    return f"{folder} is {kind_of(status.st_mode)}; name a new folder"
