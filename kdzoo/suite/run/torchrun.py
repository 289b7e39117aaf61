"""Processes that `torchrun` has started, on one machine or several: the first runs the command, the others train with it. No torch here."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kdzoo.errors import InputError
from kdzoo.suite.plan.yaml_files import read_yaml


@dataclass(frozen=True)
class TorchrunProcess:
    """Which of `count` processes this is, and which of those on its machine."""

    rank: int
    local_rank: int
    count: int


NAME = "torchrun"
"""the launcher's name"""


def asks_for_torchrun(words: Sequence[str]) -> bool:
    """Whether a command line, or its YAML file, names the launcher torchrun: only then do processes wait for each other."""
    return value_of(words, "launcher") == NAME


def asks_for_cpu(words: Sequence[str]) -> bool:
    """Whether a command line, or its YAML file, names the device cpu: its processes then need no GPUs."""
    return value_of(words, "device") == "cpu"


def value_of(words: Sequence[str], key: str) -> str | None:
    """What a command line says of a key of a bench, else its YAML file; None where neither says anything, or the file cannot be read."""
    value, file = _given(words, f"--{key}"), _given(words, "--config", "-c")
    if value is not None or file is None:
        return value
    with suppress(InputError):  # the command tells what is wrong with the file
        in_file = read_yaml(Path(file)).get(key)
        return None if in_file is None else str(in_file)
    return None


def _given(words: Sequence[str], *names: str) -> str | None:
    """The value of an option on a command line: `--device cpu`, `--device=cpu`, `-c FILE`, `-cFILE`; None where it is not there."""
    values = [next_word for word, next_word in itertools.pairwise(words) if word in names]
    values += [word.removeprefix(f"{name}=") for word in words for name in names if word.startswith(f"{name}=")]
    values += [word[2:] for word in words for name in names if len(name) == 2 and word.startswith(name) and len(word) > 2]
    return values[-1] if values else None


def torchrun_process(environment: Mapping[str, str]) -> TorchrunProcess | None:
    """What torchrun's variables say; None where this process was not started by it, or alone."""
    if "TORCHELASTIC_RUN_ID" not in environment:
        return None
    process = TorchrunProcess(int(environment["RANK"]), int(environment["LOCAL_RANK"]), int(environment["WORLD_SIZE"]))
    return process if process.count > 1 else None
