"""Processes that `torchrun` has started, on one machine or several: the first runs the command, the others train with it. No torch here."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TorchrunProcess:
    """Which of `count` processes this is, and which of those on its machine."""

    rank: int
    local_rank: int
    count: int


NAME = "torchrun"
"""the launcher's name"""


def asks_for_torchrun(words: Sequence[str]) -> bool:
    """Whether a command line has `--launcher torchrun`: only then do processes wait for each other."""
    return _has(words, "--launcher", NAME)


def asks_for_cpu(words: Sequence[str]) -> bool:
    """Whether a command line has `--device cpu`: its processes then need no GPUs."""
    return _has(words, "--device", "cpu")


def _has(words: Sequence[str], option: str, value: str) -> bool:
    return f"{option}={value}" in words or any(pair == (option, value) for pair in itertools.pairwise(words))


def torchrun_process(environment: Mapping[str, str]) -> TorchrunProcess | None:
    """What torchrun's variables say; None where this process was not started by it, or alone."""
    if "TORCHELASTIC_RUN_ID" not in environment:
        return None
    process = TorchrunProcess(int(environment["RANK"]), int(environment["LOCAL_RANK"]), int(environment["WORLD_SIZE"]))
    return process if process.count > 1 else None
