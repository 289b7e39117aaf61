"""metrics.jsonl: one line per epoch, each with the id of its run and its digest."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdzoo.files import read_file
from kdzoo.runs.atomic import write_bytes
from kdzoo.runs.loggers import LogRecord
from kdzoo.runs.sealed_json import line_with_digest, parse_line

OWNER = "run"
"""the key of a line that names the run; lines of earlier versions do not have it"""


@dataclass(frozen=True)
class Lines:
    """The records of a run's epochs in its file. unread: the number of lines from the first on that is none of them."""

    records: list[dict[str, Any]]
    unread: int


def read_lines(path: Path, run_id: str) -> list[dict[str, Any]]:
    """The records of a run's epochs up to the first line that is torn, changed, another run's or out of order; none without a file."""
    return read_whole(path, run_id).records


def read_whole(path: Path, run_id: str) -> Lines:
    """The same, with the number of lines that are not read."""
    lines = [line for line in _content(path).split(b"\n") if line.strip()]
    records = _records(lines, run_id)
    return Lines(records, len(lines) - len(records))


def _records(lines: Iterable[bytes], run_id: str) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    has_digests = False  # lines of earlier versions have none; a file of lines with digests holds no other
    for line in lines:
        try:
            record, has_digests = parse_line(line, needs_digest=has_digests)
        except (ValueError, RecursionError):
            break
        if not isinstance(record, dict) or not isinstance(record.get("step"), int) or record.get(OWNER, run_id) != run_id:
            break
        if records and record["step"] <= records[-1]["step"]:
            break
        records.append(record)
    return records


def validation_at(path: Path, run_id: str, epoch: int) -> Mapping[str, Any] | None:
    """What a run's file says of its validation images after an epoch, counted from 1; None where it does not say."""
    found = next((line.get("val") for line in read_lines(path, run_id) if line.get("epoch") == epoch), None)
    return found if isinstance(found, Mapping) else None


def number_in(values: object, name: str) -> float | None:
    """A number of a part of a line by its name; None where there is none, as for NaN and infinities, which the file has as null."""
    value = values.get(name) if isinstance(values, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    with suppress(OverflowError):  # an integer beyond all floats
        return float(value) if math.isfinite(value) else None
    return None


def _content(path: Path) -> bytes:
    """The bytes of a plain file; none where there is none."""
    try:
        return read_file(path)
    except OSError:
        return b""


class JsonLines:
    """metrics.jsonl, cut back at the start to the records at or before a step: where the checkpoint was taken.

    Raises StoreError where the file cannot be written anew, and OSError where a line cannot be written whole (a full disk).
    """

    def __init__(self, path: Path, run_id: str, keep_through_step: int) -> None:
        records = [record for record in read_lines(path, run_id) if record["step"] <= keep_through_step]
        write_bytes(path, b"".join(map(_line, records)))
        self._run_id = run_id
        self._file = path.open("ab", buffering=0)

    def epoch(self, record: LogRecord) -> None:
        line = _line({OWNER: self._run_id, **record})
        while line:  # a nearly full disk takes a part of a line, and says no to the rest
            line = line[self._file.write(line) :]

    def finish(self, result: LogRecord) -> None: ...

    def fail(self, text: str) -> None: ...

    def close(self) -> None:
        self._file.close()


def _line(record: LogRecord) -> bytes:
    return line_with_digest(json.dumps(finite(record), separators=(",", ":"), allow_nan=False).encode()) + b"\n"


def finite(value: Any) -> Any:
    """The same value with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return value
