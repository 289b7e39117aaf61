"""Which code decides what a row of a teacher cache stands for: another numbering or drawing of views must not read its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from kdzoo.files import PACKAGE

DATA_CODE = (
    *("canonical", "epoch", "loader", "mixing", "network_input", "operations"),
    *("pixels", "policy", "preprocess", "split", "texts", "views"),
)
TEACHER_CODE = ("answers", "cache", "code", "columns", "disk", "open_cache", "predictions", "teacher")
CODE = (
    *("seeds", "training/cohort", "models/placement", "models/predict"),
    *(f"teachers/{name}" for name in TEACHER_CODE),
    *(f"data/{name}" for name in DATA_CODE),
)
"""the files of this package that decide what a row of a cache stands for, and how a teacher is run for it"""


def code_files() -> list[Path]:
    return [PACKAGE / f"{name}.py" for name in CODE]


def code_digest(files: Iterable[Path]) -> str:
    """A digest of source files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


CODE_DIGEST = code_digest(code_files())
"""of the code that this process runs: read when it is imported, since an update may change the files later"""
