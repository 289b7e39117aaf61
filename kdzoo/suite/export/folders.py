"""Folders that are written whole or not at all: what is exported never stands beside what another export left."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdzoo.errors import InputError
from kdzoo.runs.atomic import ensure_writable


def refuse_used(out: Path) -> None:
    """Raise InputError where a folder to be written has files already, or is no folder."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise InputError(f"out: {out} exists already; remove it, or name another folder")


@contextmanager
def filled_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to be filled in the block, which then takes its place, and that of an earlier one.

    Where the block fails, `out` stays as it is, and nothing else is left.
    """
    ensure_writable(out.parent)
    place = out.with_name(f".{out.name}-{secrets.token_hex(4)}.part")
    place.mkdir()
    try:
        yield place
        if out.exists():
            before = out.with_name(f".{out.name}-{secrets.token_hex(4)}.removed")
            out.rename(before)
            place.rename(out)
            shutil.rmtree(before, ignore_errors=True)
        else:
            place.rename(out)
    finally:
        shutil.rmtree(place, ignore_errors=True)
