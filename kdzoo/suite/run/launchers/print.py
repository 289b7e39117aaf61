"""The launcher `print`: tells one command a job, to be run on any machine that sees the bench's folder. Free of torch."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from kdzoo.runs.events import CommandToRun, Note
from kdzoo.suite.run.launchers.launcher import EmitOfJob, LauncherSetup
from kdzoo.suite.run.launchers.shared import Shared
from kdzoo.suite.run.work_folder import JobFolder


class Commands:
    """The engine whose workers somebody else starts."""

    def announce(self, folders: Sequence[JobFolder], emit: EmitOfJob) -> None:
        """Tell the command of each job, and the one that does them all."""
        if not folders:
            return
        bench = folders[0].path.parent.parent
        every = shlex.join(["kdzoo", "work", str(bench)])
        emit(None, Note(f"`{every}`, as often as you like and on every machine that sees this folder, does all jobs; one command a job:"))
        for folder in folders:
            emit(None, CommandToRun(shlex.join(["kdzoo", "work", str(folder.path)])))

    def start(self, folders: Sequence[JobFolder], processes: int) -> None:
        """Somebody runs the commands."""

    def how_it_ended(self, folder: JobFolder) -> str | None:
        """A command may always be run again."""
        return None

    def stop(self) -> None:
        """Who ran the commands ends them; without a driver they go on to their end."""


def create(setup: LauncherSetup) -> Shared:
    """The launcher."""
    return Shared(setup, Commands())
