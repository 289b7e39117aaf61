"""Nested mappings as one. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(content: Mapping[str, Any], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings under names such as `recipe.lr`; an empty mapping has none."""
    leaves: dict[str, Any] = {}
    for name, value in content.items():
        key = f"{prefix}{name}"
        leaves |= flatten(value, separator, f"{key}{separator}") if isinstance(value, Mapping) else {key: value}
    return leaves
