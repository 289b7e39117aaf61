"""Sizes and times in a user's words."""

from __future__ import annotations

import re

SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?$", re.IGNORECASE)


DURATION = re.compile(r"^(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?$", re.IGNORECASE)
"""hours, minutes, seconds"""


def seconds_of(text: str) -> float | None:
    """The seconds of a time such as `2h`, `90m`, `1h30m`, `45s`; None for anything else, and for no time at all."""
    found = DURATION.match(text.replace(" ", ""))
    if found is None:
        return None
    return sum(float(number) * unit for number, unit in zip(found.groups(), (3600, 60, 1), strict=True) if number) or None


def size_of(text: str) -> int | None:
    """The bytes of a size such as `500MB`, `4GiB` or `0` (powers of 1024); None for anything else."""
    found = SIZE.match(text.strip())
    return None if found is None else int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))
