"""The text of a run.json, of which what many runs share is laid out once. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from kdzoo.runs.pieces import object_of_members
from kdzoo.runs.spec import Run

MOST_PARTS = 10_000
"""different students, recipes, objectives, ... of which the layout is remembered"""


class PlanTexts:
    """Lays out the run.json of many runs: of one record that stands beside several runs, the layout is made once."""

    def __init__(self) -> None:
        self._records: dict[int, tuple[Mapping[str, Any], bytes]] = {}  # by identity: a record that is kept here keeps its number

    def text(self, run: Run, about: Mapping[str, Any]) -> bytes:
        """The text of the run.json of a run and the record beside it, as `write_json` lays it out; raises ValueError for NaN."""
        if id(about) not in self._records:
            self._records[id(about)] = about, _layout(about, 1)
        parts = {name: _layout_of_part(text) for name, text in run.parts.items()}
        run_text = object_of_members(parts, 2)
        members = {"about": self._records[id(about)][1], "id": _layout(run.id, 1), "run": run_text}
        return object_of_members(members, 1) + b"\n"


@lru_cache(MOST_PARTS)
def _layout_of_part(canonical_text: str) -> bytes:
    return _layout(json.loads(canonical_text), 2)


def _layout(value: Any, depth: int) -> bytes:
    """A JSON value as `write_json` lays it out as a member of an object that is `depth` levels deep."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return text.replace("\n", "\n" + " " * depth).encode()  # no line break stands within a JSON string
