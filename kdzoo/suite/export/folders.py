"""Folders that are written whole or not at all: what is exported never stands beside what another export left."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kdzoo.errors import InputError
from kdzoo.runs.atomic import ensure_writable
from kdzoo.runs.output_files import fault_of_new_folder


def refuse_used(out: Path) -> None:
    """Raise InputError where a folder to be written has files already, or is no folder."""
    if fault := fault_of_new_folder(out):
        raise InputError(f"out: {fault}")


@contextmanager
def filled_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to be filled in the block, which then takes its place, and that of an earlier one.

    Where `out` is a link to a folder, that folder is meant. Where the block fails, it stays as it is, and nothing else is left.
    """
    out = out.resolve()
    ensure_writable(out.parent)
    place = out.with_name(f".{out.name}-{secrets.token_hex(4)}.part")
    place.mkdir()
    try:
        yield place
        before = out.with_name(f".{out.name}-{secrets.token_hex(4)}.removed") if out.exists() else None
        if before is not None:
            shutil.copymode(out, place)
            out.rename(before)
        try:
            place.rename(out)
        except OSError:
            if before is not None:
                before.rename(out)
            raise
        if before is not None:
            shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)
