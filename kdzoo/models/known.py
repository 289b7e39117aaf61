"""kdzoo's own networks with their sizes, read off a table, so that they are listed without torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import yaml

from kdzoo.files import CONFIGS

TABLE = CONFIGS / "networks.yaml"


@dataclass(frozen=True)
class Known:
    """Parameters, and multiply-accumulates of one image, of a network that tells `classes` apart; input: channels, height, width."""

    parameters: int
    macs: int
    input: tuple[int, int, int]
    classes: int


@cache
def own_networks() -> dict[str, Known]:
    """kdzoo's own networks by name."""
    rows = yaml.safe_load(TABLE.read_text())
    return {name: Known(row["parameters"], row["macs"], tuple(row["input"]), row["classes"]) for name, row in rows.items()}
