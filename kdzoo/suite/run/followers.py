"""Further processes that train a worker's runs with it: how they are started, told what to train, and ended.

The worker leads: it plans, resumes, measures, writes and tells; the others (`follower`) compute their part of every batch. They live
and die together: where one ends, so do all, and the driver resumes the runs from their checkpoints as after any death.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.distributed_c10d import Store as ProcessStore
from torch.distributed.rendezvous import rendezvous

from kdzoo.contract.joint import ProcessGroup
from kdzoo.data.epoch import Shard
from kdzoo.errors import InputError, KdzooError
from kdzoo.runs.options import WorkerOptions
from kdzoo.runs.store import Store
from kdzoo.suite.run.channel import PROCESSES_BROKEN
from kdzoo.suite.run.launchers.gpus import VISIBLE
from kdzoo.training.checkpoint import state_of
from kdzoo.training.cohort import Cohort
from kdzoo.training.processes import Processes

PATIENCE = timedelta(days=30)
"""how long a process waits for the others: a teacher may be measured in between, and who hangs is the driver's to notice"""


@dataclass(frozen=True)
class FollowerTask:
    """A cohort to train together: the runs by id in their store, and the states (bytes of torch.save) in which they begin.

    plugins: the files that register what the runs name.
    """

    store: Store
    ids: tuple[str, ...]
    options: WorkerOptions
    states: bytes
    plugins: tuple[str, ...] = ()


def join_processes(rank: int, count: int, rendezvous: Path, device: str) -> Processes:
    """Join the processes that train together; returns when all are there."""
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, init_method=f"file://{rendezvous}", rank=rank, world_size=count, timeout=PATIENCE)
    control: ProcessGroup = dist.new_group(backend="gloo", timeout=PATIENCE)
    dist.barrier(group=control)  # whoever is last still reads the file of the rendezvous, which then is removed
    return Processes(Shard(rank, count), control)


def join_torchrun(on_cpu: bool) -> None:
    """Join the processes that torchrun has started; returns when all are there. on_cpu: whether they were asked to train on the CPU.

    Raises InputError, in all of them, where some see a GPU and others none: there are more processes than GPUs.
    """
    store, rank, count = next(rendezvous("env://"))
    sees_gpu = torch.cuda.is_available() and not on_cpu
    without = ranks_without_gpu(PrefixStore("kdzoo/gpus", store), rank, count, sees_gpu)
    if without and len(without) < count:
        raise InputError(
            f"torchrun has started {count} processes, and those of rank {', '.join(map(str, without))} see no GPU: "
            "start as many on a machine as it has GPUs (--nproc-per-node), or give --device cpu"
        )
    backend = "cpu:gloo,cuda:nccl" if sees_gpu else "gloo"
    dist.init_process_group(backend, store=PrefixStore("kdzoo", store), rank=rank, world_size=count, timeout=PATIENCE)


def ranks_without_gpu(store: ProcessStore, rank: int, count: int, sees_gpu: bool) -> list[int]:
    """Which of `count` processes see no GPU, the same in all; returns when each of them has told the store what it sees."""
    store.set_timeout(PATIENCE)
    store.set(str(rank), str(int(sees_gpu)))
    return [other for other in range(count) if store.get(str(other)) == b"0"]


def of_torchrun() -> Processes:
    """The processes that have joined, which agree by tensors on the CPU, so over gloo.

    Raises InputError where none have: they do so at the start of a command line with `--launcher torchrun`.
    """
    if not dist.is_initialized():
        command = "torchrun --nproc-per-node N -m kdzoo bench --launcher torchrun --processes-per-run N"
        raise InputError(f"launcher: torchrun has not started this process; expected {command}")
    return Processes(Shard(dist.get_rank(), dist.get_world_size()), dist.group.WORLD)


def dismiss() -> None:
    """Tell the followers that torchrun has started, and that wait for a cohort, that there are no more."""
    share_task(None, of_torchrun())
    dist.destroy_process_group()


REMOVE = "import shutil, sys; sys.stdin.read(); shutil.rmtree(sys.argv[1], ignore_errors=True)"
"""reads its pipe to the end, which comes when nobody has the other end open any more"""


@contextlib.contextmanager
def rendezvous_file() -> Iterator[tuple[Path, int]]:
    """A place for the file by which processes meet, and the end of a pipe that each of them must have open until they have met.

    Its folder is removed on leaving or, where processes die before, by a process of its own once nobody has the pipe open. Not
    earlier: without the folder torch's rendezvous waits in C++ and lets no other thread run, so that nothing could end the process.
    """
    with contextlib.ExitStack() as stack:
        ended, keep = os.pipe()
        stack.callback(os.close, keep)
        folder = Path(tempfile.mkdtemp(prefix="kdzoo-processes-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        with open(ended, "rb") as its_end:
            remover = subprocess.Popen([sys.executable, "-ISc", REMOVE, str(folder)], stdin=its_end, start_new_session=True)
        stack.callback(remover.wait)
        stack.callback(remover.kill)
        yield folder / "rendezvous", keep


def share_task(task: FollowerTask | None, processes: Processes) -> FollowerTask | None:
    """The leader's next task, in all processes; None for the end."""
    tasks: list[Any] = [task]
    dist.broadcast_object_list(tasks, src=0, group=processes.control)
    return tasks[0]  # type: ignore[no-any-return]


def hand_over(cohort: Cohort, store: Store, options: WorkerOptions, plugins: Sequence[str], processes: Processes) -> None:
    """Have the others train a cohort with this process from where it stands."""
    buffer = io.BytesIO()
    torch.save([state_of(member) for member in cohort.members], buffer)
    ids = tuple(member.run.id for member in cohort.members)
    share_task(FollowerTask(store, ids, options, buffer.getvalue(), tuple(plugins)), processes)
    cohort.share(processes)


class TorchrunFollowers:
    """Followers that torchrun has started with this process. It ends them all where one ends, and is the one to start them again."""

    def __init__(self, plugins: Sequence[str]) -> None:
        self.processes, self._plugins = of_torchrun(), plugins

    def begin(self, cohort: Cohort, store: Store, options: WorkerOptions) -> None:
        """Have the followers train a cohort with this process from where it stands."""
        hand_over(cohort, store, options, self._plugins, self.processes)

    def close(self) -> None:
        """End this process, since the followers wait in the middle of a step; torchrun then ends them."""
        error = sys.exception()
        sys.stdout.flush()
        print(error if isinstance(error, KdzooError) else "".join(traceback.format_exception(error)), file=sys.stderr)
        print(
            "the processes that train together end with this one; the same command resumes from the checkpoints",
            file=sys.stderr,
            flush=True,
        )
        os._exit(PROCESSES_BROKEN)


class Followers:
    """The followers of this worker. A follower that ends while it is needed ends the worker too, with PROCESSES_BROKEN."""

    def __init__(self, count: int, device: str, plugins: Sequence[str]) -> None:
        """count: of all processes, this one included, which then is the first of them."""
        self._closing = False
        self._plugins = plugins
        gpus = os.environ.get(VISIBLE, "").split(",")
        self._started: list[subprocess.Popen[bytes]] = []
        command = [sys.executable, "-m", "kdzoo.suite.run.follower"]
        with rendezvous_file() as (rendezvous, keep):
            try:
                for rank in range(1, count):
                    environment = {**os.environ, **({VISIBLE: gpus[rank]} if rank < len(gpus) and gpus[rank] else {})}
                    words = [*command, str(rank), str(count), str(rendezvous), device]
                    self._started.append(subprocess.Popen(words, stdin=subprocess.PIPE, env=environment, pass_fds=(keep,)))
                    threading.Thread(target=self._watch, args=(self._started[-1],), daemon=True).start()
                self.processes = join_processes(0, count, rendezvous, device)
            except BaseException:
                self._end_followers()  # before the folder in which they meet is removed
                raise

    def begin(self, cohort: Cohort, store: Store, options: WorkerOptions) -> None:
        """Have the followers train a cohort with this process from where it stands."""
        hand_over(cohort, store, options, self._plugins, self.processes)

    def close(self) -> None:
        """End the followers, whatever they are doing."""
        self._end_followers()
        dist.destroy_process_group()

    def _end_followers(self) -> None:
        self._closing = True
        for process in self._started:
            process.kill()
            process.wait()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        if not self._closing:
            print(f"a process that trains with this worker ended with status {code}; the worker ends", file=sys.stderr, flush=True)
            os._exit(PROCESSES_BROKEN)
