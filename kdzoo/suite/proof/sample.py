"""Which runs of a bench are trained again: drawn, so that nobody knows them beforehand, by a seed that draws them again."""

from __future__ import annotations

import random
from collections.abc import Sequence

from kdzoo.suite.report.records import Record


def new_seed() -> int:
    """A seed from the operating system's own source."""
    return random.SystemRandom().randrange(1_000_000)


def draw(records: Sequence[Record], count: int, seed: int) -> list[Record]:
    """`count` finished runs in a random order, all of them where there are no more; the same for the same runs and seed."""
    done = sorted((record for record in records if record.state == "done"), key=lambda record: record.id)
    return random.Random(seed).sample(done, min(count, len(done)))
