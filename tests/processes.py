"""A command in a process group of its own, and what is left of its processes."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from warm_python import SEED, WarmPopen


def started(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    popen: type[subprocess.Popen[Any]] = WarmPopen,
) -> subprocess.Popen[str]:
    """A command of Python's as from a terminal, which sends its signals to a group, also where the tests run in the background.

    popen: WarmPopen forks a Python that has imported everything, OtherHashPopen one with another hash seed; `subprocess.Popen`
    starts a new interpreter.
    """
    return popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=_take_signals,
    )


def _take_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def members_of_group(group: int) -> list[int]:
    """The processes of a group that are still there after five seconds."""
    return left_of(lambda: running_in(group))


def left_of(running: Callable[[], list[int]]) -> list[int]:
    """The processes of a list that are still there after five seconds: one that was ended takes a moment to be gone."""
    deadline = time.monotonic() + 5
    while (found := running()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def running_in(group: int) -> list[int]:
    """The processes of a group now."""
    return [one.pid for one in _running() if one.group == group and one.command != SEED]


def children(name: str) -> list[int]:
    """The processes that this one started and whose command has a word in its name."""
    return [one.pid for one in _running() if one.parent == os.getpid() and name in one.command]


class _Process(NamedTuple):
    pid: int
    command: str
    parent: int
    group: int


def _running() -> list[_Process]:
    """Every process that has not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                _state, parent, group = rest.split()[:3]
                if not is_ended(entry):
                    found.append(_Process(int(entry.name), command, int(parent), int(group)))
    return found


def is_ended(process: Path) -> bool:
    """Whether a process, by its folder in /proc, holds nothing any more: files and locks are its threads' until the last one has ended."""
    state = (process / "stat").read_text().rpartition(")")[2].split()[0]
    return state == "Z" and len(list((process / "task").iterdir())) == 1
