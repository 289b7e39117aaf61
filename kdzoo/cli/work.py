"""`kdzoo work`: trains runs that a bench on another machine has planned."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

from kdzoo.cli.declare import argument
from kdzoo.cli.output import print_text
from kdzoo.cli.training import training_display
from kdzoo.errors import InputError
from kdzoo.text import number_of


def work(
    folder: Annotated[Path, argument("A bench's folder, or that of one job in it.", metavar="FOLDER")],
) -> int:
    """Train what is left of a bench that was started with --launcher print, slurm or ray, until nothing is.

    Start it as often as you like, on every machine that sees the folder (and the cache folder of the bench, with its
    teachers): workers claim one job each, and take over the job of one that dies. SIGTERM and Ctrl-C write checkpoints. The
    bench itself waits for its runs and writes the tables; where it has been stopped, the same `kdzoo bench` does.

    \b
    Examples:
      kdzoo bench --launcher print
      kdzoo work results/digits
    """
    from kdzoo.suite.plan.starts import is_bench
    from kdzoo.suite.run.take_work import JobSource, Workers, take_work

    if not folder.is_dir():
        raise InputError(f"work: {folder}: no such folder; expected results/BENCH of a bench that was started with --launcher print")
    source = JobSource.at(folder)
    if not source.may_have_jobs() and not is_bench(folder):
        raise InputError(f"work: {folder} is no bench; expected results/BENCH of a bench that was started with --launcher print")
    if not source.may_have_jobs():
        print_text(f"{folder}: no jobs are left to do")
        return 0
    with training_display() as display, Workers() as workers:
        done = take_work(folder, display.handle, workers=workers)
    for line in done.refused:
        print_text(f"cannot be done: {line}")
    print_text(f"{socket.gethostname()}: {number_of(done.jobs, 'job')} done; no more are left")
    return 1 if done.refused else 0
