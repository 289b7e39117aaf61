"""The text of a run.json, of which what many runs share is laid out once. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import from_json

from kdzoo.runs.about import about_faults, shared_record
from kdzoo.runs.pieces import object_of_members
from kdzoo.runs.read_run import MOST_PARTS, PlanFile
from kdzoo.runs.sealed_json import with_digest
from kdzoo.runs.spec import Run


class PlanText(NamedTuple):
    """The text of a run.json, as `write_json` lays it out, but for its digest, and what is read from it."""

    without_digest: bytes
    content: PlanFile

    @property
    def text(self) -> bytes:
        """The file."""
        return with_digest(self.without_digest)

    def is_that_of(self, file: bytes) -> bool:
        """Whether a file says this, byte for byte, with its digest or as earlier versions wrote it."""
        return file == self.without_digest or file == self.text


class _RecordText(NamedTuple):
    """A record that stands beside runs: the object itself, its layout, and what is read from that."""

    about: Mapping[str, Any]
    text: bytes
    content: dict[str, Any]
    faults: tuple[str, ...]


class PlanTexts:
    """Lays out the run.json of many runs: of one record that stands beside several runs, the layout is made once."""

    def __init__(self) -> None:
        self._records: dict[int, _RecordText] = {}  # by identity: a record that is kept here keeps its number

    def of(self, run: Run, about: Mapping[str, Any]) -> PlanText:
        """The text of the run.json of a run and the record beside it; raises ValueError for NaN."""
        record = self._records.get(id(about)) or self._records.setdefault(id(about), _record_text(about))
        parts = run.parts
        run_text = object_of_members({name: _layout_of_part(text) for name, text in parts.items()}, 2)
        text = object_of_members({"about": record.text, "id": json.dumps(run.id).encode(), "run": run_text}, 1) + b"\n"
        return PlanText(text, PlanFile(run, parts, record.content, record.faults))


def _record_text(about: Mapping[str, Any]) -> _RecordText:
    text = _layout(about, 1)
    content = shared_record(from_json(text))
    return _RecordText(about, text, content, tuple(about_faults(content)))


@lru_cache(MOST_PARTS)
def _layout_of_part(canonical_text: str) -> bytes:
    return _layout(json.loads(canonical_text), 2)


def _layout(value: Any, depth: int) -> bytes:
    """A JSON value as `write_json` lays it out as a member of an object that is `depth` levels deep."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return text.replace("\n", "\n" + " " * depth).encode()  # no line break stands within a JSON string
