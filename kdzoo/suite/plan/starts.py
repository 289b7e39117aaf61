"""The commands that trained for a bench, each with its whole configuration, in `bench.json` in its folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdzoo.errors import InputError
from kdzoo.files import read_file
from kdzoo.runs.atomic import set_aside
from kdzoo.runs.locks import file_lock
from kdzoo.runs.sealed_json import parse_sealed, write_sealed_json
from kdzoo.runs.store import Store
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.version import VERSION

NAME = "bench.json"
RUNS = "runs/*/run.json"
"""the runs of a bench, from its folder on"""
LOOKED_FOR = f"{NAME} or {RUNS}"
"""what makes a folder a bench, in words"""


LOOKED_AT = 1000
"""runs whose files tell whether a bench seems to be complete"""


@dataclass(frozen=True)
class Start:
    """One start of a bench: the command line or the call, kdzoo's version, the configuration in full, the ids of its plan's runs.

    `config` may be written to a YAML file and used again with --config.
    """

    command: str
    config: Mapping[str, Any]
    runs: tuple[str, ...]
    kdzoo: str = VERSION

    @staticmethod
    def of(command: str, config: BenchConfig, runs: Iterable[str]) -> Start:
        return Start(command, config.model_dump(mode="json"), tuple(sorted(runs)))

    def repeats(self, other: Start) -> bool:
        """Whether both are the same command with the same configuration: their plans may differ by what was added since."""
        return (self.command, self.config) == (other.command, other.config)


def is_bench(folder: Path) -> bool:
    """Whether a bench was started in a folder, or runs are in it; a folder that merely has a sub-folder `runs` is none."""
    return any(any(folder.glob(what)) for what in (NAME, RUNS))  # a folder that may not be read has neither


def read_starts(folder: Path) -> list[Start]:
    """The starts of a bench, the present plan's last; none where the file is missing. Raises InputError for a damaged one."""
    file = folder / NAME
    try:
        return [_start(entry) for entry in parse_sealed(read_file(file), str(file))["starts"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{file}: damaged ({error})") from error


def _start(entry: Mapping[str, Any]) -> Start:
    start = Start(str(entry["command"]), dict(entry["config"]), tuple(entry["runs"]), str(entry["kdzoo"]))
    if not all(isinstance(run_id, str) for run_id in start.runs):
        raise ValueError("runs: expected ids")
    return start


def keep_start(folder: Path, start: Start) -> str | None:
    """Append a start to a bench's file, in place of an earlier one of the same command; returns what was wrong with the file, or None.

    A damaged file is renamed and a new one begun.
    """
    fault = None
    with file_lock(folder / ".bench.lock"):
        try:
            before = read_starts(folder)
        except InputError as error:
            before, fault = [], f"{error.problems[0]}; it is kept as {set_aside(folder / NAME).name}"
        starts = [*(one for one in before if not start.repeats(one)), start]
        if starts != before:
            write_sealed_json(folder / NAME, {"starts": [asdict(one) for one in starts]})
    return fault


def is_complete(config: BenchConfig) -> bool:
    """Whether the runs that this configuration has planned before have results: a guess from some of them, of which none is read."""
    folder = Path(config.results) / config.name
    try:
        planned = [start.runs for start in read_starts(folder) if start.config == config.model_dump(mode="json")]
    except InputError:
        return False
    if not planned:
        return False
    some = planned[-1][:: 1 + len(planned[-1]) // LOOKED_AT]
    return all(Store(folder).run(run_id).has_result() for run_id in some)
