"""Independent searches: choosing and refitting repeated, each time with seeds that no other has used. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdzoo.errors import InputError
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.doses import NAME as DOSES
from kdzoo.suite.plan.refit import fresh_seeds, validation_share

PREFIX = "search-"
"""how the folders of searches begin, in the folder of the bench"""


def searches(config: BenchConfig) -> Iterator[BenchConfig]:
    """The benches that a bench with `searches` comes to, one after the other.

    Each has a folder of its own, NAME/search-1 and so on, and is made when it is asked for: it uses the doses that the first
    has measured. Raises InputError where nothing could be chosen or refitted.
    """
    if config.refit is False or not validation_share(config):
        raise InputError("searches: what is repeated is choosing and refitting; expected --refit and validation images")
    folder, shift = Path(config.results) / config.name, _seeds_of_one(config)
    for number in range(config.searches or 1):
        doses = folder / f"{PREFIX}1"
        own = {"doses_from": str(doses)} if number and config.doses_from is None and (doses / DOSES).exists() else {}
        seeds = tuple(seed + number * shift for seed in config.seeds)
        yield config.model_copy(
            update={"results": str(folder), "name": f"{PREFIX}{number + 1}", "seeds": seeds, "refit": True, "searches": None, **own}
        )


def _seeds_of_one(config: BenchConfig) -> int:
    """How many seeds one search takes up, of the sweep and of the refit."""
    refit = [seed for method in ("none", *config.methods) for seed in fresh_seeds(method, config)]
    return max([*config.seeds_of_controls, *refit]) + 1 - min(config.seeds)
