"""The one form in which a JSON value is written where it is hashed. Free of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

as_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode
"""one line of JSON; of a value in canonical form, the canonical JSON"""


def canonical(value: Any) -> Any:
    """The same JSON value in one form: whole floats as integers, mappings in key order, tuples as lists."""
    if value is None or isinstance(value, str | int):  # first, since most values are, and a table asks this of every run
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    return value


def canonical_json(value: Any) -> str:
    """One line of JSON that is the same for equal values; NaN and infinities are refused."""
    return as_json(canonical(value))


def object_of(parts: Mapping[str, str]) -> str:
    """The canonical JSON of an object from that of its values."""
    return "{" + ",".join(f'"{name}":{parts[name]}' for name in sorted(parts)) + "}"
