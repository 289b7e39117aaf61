"""Files that are replaced whole or left as they were. Free of torch."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from kdzoo.errors import InputError, KdzooError
from kdzoo.files import kind_of, read_file

UNFINISHED = ".part"
"""the ending of a file that is being written, and is renamed once it is whole"""
LONGEST_WRITE_SECONDS = 3600.0
"""a file that is older and has this ending was left by a process that was killed"""


class StoreError(KdzooError):
    """Something could not be written; what was on disk is as it was."""


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file whole or leave it as it was; raises StoreError that names the file and the reason."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def remove_unfinished(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left in a folder."""
    for path in folder.glob(f".*{UNFINISHED}"):
        with contextlib.suppress(OSError):  # another process has removed it, or it is somebody else's
            if abs(time.time() - path.lstat().st_mtime) > LONGEST_WRITE_SECONDS:
                path.unlink()


def set_aside(path: Path) -> Path:
    """Rename a damaged file or folder to NAME.damaged (NAME.damaged-2, ... where that is taken); its new path."""
    number = 1
    while (aside := path.with_name(path.name + (".damaged" if number == 1 else f".damaged-{number}"))).exists() or aside.is_symlink():
        number += 1
    try:
        path.rename(aside)
    except OSError as error:
        raise StoreError(f"cannot rename {path} to {aside.name}: {error.strerror}") from error
    return aside


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file whole."""
    write_bytes(path, json_text(value))


def json_text(value: Mapping[str, Any]) -> bytes:
    """An object as kdzoo's own files have it: keys in order, one indent; raises ValueError for NaN."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


def ensure_writable(folder: Path) -> None:
    """Make a folder and prove that it takes a file; raises InputError otherwise."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"kdzoo")
            file.flush()
    except FileExistsError as error:
        raise InputError(f"results: cannot write to {folder}: it is {kind_of(folder.lstat().st_mode)}, no folder") from error
    except OSError as error:
        raise InputError(f"results: cannot write to {folder}: {error.strerror}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds; raises InputError where it is missing or damaged."""
    return json_object(read_record_file(path), str(path))


def read_record_file(path: Path | str) -> bytes:
    """The bytes of a file that kdzoo keeps; raises InputError where it is missing or cannot be read."""
    try:
        return read_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: damaged ({error.strerror})") from error


def json_object(text: bytes, where: str) -> dict[str, Any]:
    """The JSON object that a text is; raises InputError where it is none."""
    try:
        content = _parsed(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: damaged ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{where}: damaged (expected a JSON object)")
    return content


def _parsed(text: bytes) -> Any:
    """The JSON value that a text holds; raises ValueError or RecursionError where it is none.

    pydantic's parser gives the same values in half the time; what it refuses, such as a byte order mark, json decides about.
    """
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)
