"""The main program of a process that trains a worker's runs with it (see `followers`): it writes nothing but failures."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import traceback
from pathlib import Path

import torch

from kdzoo.contract.plugins import load_plugins
from kdzoo.models.kernels import set_kernels
from kdzoo.models.placement import Placement
from kdzoo.runs.events import Event
from kdzoo.suite.run.accelerators import attach_accelerators
from kdzoo.suite.run.allocator import keep_freed_memory
from kdzoo.suite.run.followers import FollowerTask, join_processes, share_task
from kdzoo.suite.run.worker_state import WorkerState
from kdzoo.training.checkpoint import restore
from kdzoo.training.cohort import Cohort
from kdzoo.training.located import LocatedRun
from kdzoo.training.processes import Processes
from kdzoo.training.run_student import build_member
from kdzoo.training.train import Stopped, fit


def main() -> None:
    """Train what the leader says, until it is gone. Arguments: rank, number of processes, rendezvous, device."""
    rank, count, rendezvous, device = sys.argv[1:]
    ignore_signals()
    keep_freed_memory()
    threading.Thread(target=_end_with_leader, daemon=True).start()
    follow_leader(join_processes(int(rank), int(count), Path(rendezvous), device))


def ignore_signals() -> None:
    """Leave it to the leader to say when training ends."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def follow_leader(processes: Processes) -> None:
    """Train cohort after cohort with the leader, until it says that there are no more; ends this process where one fails."""
    state = WorkerState()
    try:
        while (task := share_task(None, processes)) is not None:
            with contextlib.suppress(Stopped):
                follow(task, state, processes)
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # at once: an exit in good order would wait for the others


def follow(task: FollowerTask, state: WorkerState, processes: Processes) -> None:
    """Train a cohort with the leader; nothing is told or written here."""
    load_plugins(task.plugins)
    torch.set_num_threads(task.options.threads)
    set_kernels(task.options)
    execution = Placement(task.options)
    located_runs = [LocatedRun.read(task.store.run(run_id)) for run_id in task.ids]
    dataset, splits = state.data(located_runs[0], task.options)
    teacher, shapes = None, None
    for located in [located for located in located_runs if located.run.teacher is not None][:1]:
        teacher, shapes = state.teacher(located, dataset, splits, execution, _ignore)
    states = torch.load(io.BytesIO(task.states), map_location=execution.device, weights_only=True)
    members = []
    for located, its_state in zip(located_runs, states, strict=True):
        taught = shapes if located.run.teacher is not None else None
        member = build_member(located, dataset, splits, taught, execution, state.modules, its_state["teacher_weights"])
        restore(member, its_state)
        members.append(member)
    cohort = Cohort(members, splits, teacher, execution)
    cohort.share(processes)
    attach_accelerators(cohort, _ignore)
    fit(cohort, emit=_ignore, stop=lambda: False)


def _ignore(event: Event) -> None:
    """What happens is the leader's to tell."""


def _end_with_leader() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
