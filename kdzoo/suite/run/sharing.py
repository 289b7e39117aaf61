"""Whether several processes can train a run together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from kdzoo.errors import InputError
from kdzoo.runs.options import ExecutionSpec
from kdzoo.runs.spec import Run
from kdzoo.suite.run.torchrun import NAME, TorchrunProcess, torchrun_process


def problems_of_sharing(options: ExecutionSpec, device: str | None, gpus: int) -> Iterator[str]:
    """Why runs cannot be trained by so many processes with these options, a sentence each. gpus: those that a worker may take."""
    count, by_torchrun = options.processes_per_run, options.launcher == NAME
    if by_torchrun:
        yield from _problems_of_torchrun(options, torchrun_process(os.environ))
    if count == 1:
        return
    if options.launcher == "here":
        yield "processes_per_run: the launcher here trains in this process alone; take local"
    for name in ("stack_students", "compile", "graphs"):
        if getattr(options, name):
            yield f"{name}: cannot be combined with processes_per_run; leave one of them out"
    if device is not None and device.startswith("cuda:"):
        yield f"processes_per_run: expected device cuda, of which each process takes its own, got {device}"
    if device == "cuda" and gpus < count and options.launcher in (None, "local") and not by_torchrun:
        yield f"processes_per_run: expected at most {gpus}, the number of GPUs, got {count}"


def _problems_of_torchrun(options: ExecutionSpec, process: TorchrunProcess | None) -> Iterator[str]:
    """Why the processes that torchrun has started cannot train with these options. process: this one; None where it has started none."""
    if process is None:
        yield "launcher: torchrun starts the processes itself: torchrun --nproc-per-node 8 -m kdzoo bench --launcher torchrun ..."
        return
    if options.processes_per_run != process.count:
        yield (
            f"processes_per_run: torchrun has started {process.count} processes; give --processes-per-run {process.count}, "
            f"got {options.processes_per_run}"
        )
    if options.jobs not in (None, 1):
        yield f"jobs: expected 1, since all processes train the same run, got {options.jobs}"


def note_of_torchrun(options: ExecutionSpec, process: TorchrunProcess | None) -> str | None:
    """What happens where torchrun has started several processes and the launcher is another one, told by the first of them."""
    if process is None or process.rank != 0 or options.launcher == NAME:
        return None
    return (
        f"torchrun has started {process.count} processes, and each of them trains this bench by itself; with --launcher {NAME} "
        f"--processes-per-run {process.count} they train each run together"
    )


def refuse_sharing(run: Run, samples: int, processes: int) -> None:
    """Raises InputError for a run that several processes cannot train together. samples: of its training data."""
    if processes > 1 and (problems := list(_problems_of(run, samples, processes))):
        raise InputError(*problems)


def _problems_of(run: Run, samples: int, processes: int) -> Iterable[str]:
    recipe, last = run.recipe, samples % run.recipe.batch_size
    if recipe.dot is not None:
        yield "recipe.dot: its two gradients cannot be those of several processes; leave out processes_per_run"
    if min(recipe.batch_size, samples) < processes:
        yield f"recipe.batch_size: expected at least {processes}, a sample for each process, got {recipe.batch_size} of {samples} samples"
    elif not recipe.drop_last and 1 < last < processes:
        yield (
            f"recipe.batch_size: the last batch of an epoch has {last} of {samples} samples, fewer than {processes} processes; set "
            "recipe.drop_last, or take another size"
        )
