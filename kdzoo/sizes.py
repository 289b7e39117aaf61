"""Sizes in a user's words."""

from __future__ import annotations

import re

SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?$", re.IGNORECASE)


def size_of(text: str) -> int | None:
    """The bytes of a size such as `500MB`, `4GiB` or `0` (powers of 1024); None for anything else."""
    found = SIZE.match(text.strip())
    return None if found is None else int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))
