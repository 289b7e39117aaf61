"""A command in a process group of its own, and what is left of its processes."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


def started(command: Sequence[str], *, folder: Path | None = None, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """The command as from a terminal, which sends its signals to a group, also where the tests themselves run in the background."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
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
    """The processes of a group that are still there after five seconds: one that was killed takes a moment to be gone."""
    deadline = time.monotonic() + 5
    while (found := running_in(group)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def running_in(group: int) -> list[int]:
    """The processes of a group now."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == group and fields[0] != "Z":
                    found.append(int(entry.name))
    return found
