"""Named random streams: every draw is a pure function of a seed and the names of what it is for."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def stream(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names` under `seed`; other names give independent streams."""
    text = "/".join(["kdzoo", str(seed), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that stands at the start of the stream `names`."""
    return torch.Generator(device=device).manual_seed(stream(seed, *names))


@contextmanager
def global_stream(seed: int, *names: str | int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Run a block with torch's global generators at the start of a stream, and put them back afterwards.

    Layers that draw from the global generator (dropout, stochastic depth, initialisers) become pure functions of
    (seed, names), so that neither a neighbour in the cohort nor a resume can change what they draw.
    """
    seed, target = stream(seed, *names), torch.device(device)
    # torch.manual_seed within torch.random.fork_rng does the same, but looks for every kind of device: it takes 0.15 ms by itself and
    # makes a step of plain KD on the digits, of 6.3 ms, longer by 0.7, where this makes it longer by 0.02.
    generators = [torch.default_generator]
    if target.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        generators.append(torch.cuda.default_generators[torch.cuda.current_device() if target.index is None else target.index])
    before = [one.get_state() for one in generators]
    for one in generators:
        one.manual_seed(seed)
    try:
        yield
    finally:
        for one, state in zip(generators, before, strict=True):
            one.set_state(state)


@contextmanager
def library_stream(seed: int, *names: str | int) -> Iterator[None]:
    """The same for the global generators of Python's `random` and of numpy, which a user's code may draw from."""
    python, legacy = random.getstate(), np.random.get_state()
    start = stream(seed, *names)
    random.seed(start)
    np.random.seed(start % 2**32)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
