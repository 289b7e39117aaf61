"""`--notify`: a command of the user's own, run when a bench has ended, however it ended."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdzoo.cli.interruption import Interrupted
from kdzoo.cli.output import print_message
from kdzoo.suite.plan.jobs import Outcome
from kdzoo.suite.run.fork import how_it_ended
from kdzoo.text import first_line

NOTIFY = "--notify"
PATIENCE_SECONDS = 60.0
"""how long the command may take"""
Status = Literal["done", "failed", "interrupted"]


def kept_command(command: str) -> str:
    """A command line as a bench's folder keeps it: without the command for its end, which changes no number and may hold a secret."""
    words, rest = iter(shlex.split(command)), list[str]()
    for word in words:
        if word == NOTIFY:
            next(words, None)
        elif not word.startswith(f"{NOTIFY}="):
            rest.append(word)
    return shlex.join(rest)


@dataclass
class Ending:
    """How a bench ends, told by whoever runs it."""

    outcome: Outcome | None = None


@contextmanager
def notification(command: str | None, folder: Path) -> Iterator[Ending]:
    """Run a command after the block, with what became of the bench in KDZOO_STATUS and other variables; nothing without a command.

    A command that fails is told, and changes nothing.
    """
    ending = Ending()
    try:
        yield ending
    except BaseException as error:
        if command is not None:
            _run(
                command, folder, "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed", first_line(error), None
            )
        raise
    if command is not None:
        outcome = ending.outcome or Outcome()
        _run(command, folder, "failed" if outcome.failed else "done", "", outcome)


def _run(command: str, folder: Path, status: Status, reason: str, outcome: Outcome | None) -> None:
    variables = {
        "KDZOO_STATUS": status,
        "KDZOO_BENCH": str(folder.absolute()),
        "KDZOO_REASON": reason,
        "KDZOO_RUNS_DONE": "" if outcome is None else str(len(outcome.done)),
        "KDZOO_RUNS_FAILED": "" if outcome is None else str(len(outcome.failed)),
    }
    process = subprocess.Popen(command, shell=True, env={**os.environ, **variables}, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        process.wait(PATIENCE_SECONDS)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)  # with all that the shell has started
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        print_message(f"--notify: the command did not end within {PATIENCE_SECONDS:.0f} seconds and was killed")
        return
    if process.returncode:
        print_message(f"--notify: the command {how_it_ended(process.returncode)}")
