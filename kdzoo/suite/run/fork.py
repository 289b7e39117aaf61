"""A call in a copy of this process, so that what ends the copy does no harm here."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from enum import StrEnum
from multiprocessing.connection import Connection

PATIENCE_SECONDS = 30.0
"""after which a copy that has not answered is ended: a lock that another thread held at the fork is never released in it"""


class Fate(StrEnum):
    """How a call in a copy of this process came out."""

    returned = "returned"
    raised = "raised"
    stalled = "stalled"
    unknown = "unknown"


def fate_in_copy(call: Callable[[], object]) -> Fate | str:
    """Call a function in a fork of this process, as PyTorch's data loaders do; how it came out, or in words how the copy died.

    What the copy prints is dropped, and whatever it changes is gone with it. A call that raised may do otherwise in this
    process: autograd refuses a fork of a process that has used a GPU. A copy that does not answer within PATIENCE_SECONDS has
    stalled and is ended. The fate is unknown where no copy can be made: outside Linux, without memory or process numbers for
    one, or in a daemon process.
    """
    if sys.platform != "linux":
        return Fate.unknown
    context = multiprocessing.get_context("fork")
    try:
        answer, ours = context.Pipe(duplex=False)
    except OSError:
        return Fate.unknown
    copy = context.Process(target=_answer, args=(call, ours), daemon=True)
    try:
        copy.start()
    except (AssertionError, OSError):  # a daemon process may have no children
        answer.close()
        return Fate.unknown
    finally:
        ours.close()
    try:
        if not answer.poll(PATIENCE_SECONDS):
            return Fate.stalled
        return Fate(answer.recv())
    except EOFError:  # it died without an answer
        copy.join()
        return how_it_ended(copy.exitcode or 0)
    finally:
        answer.close()
        copy.kill()
        copy.join()


def how_it_ended(code: int) -> str:
    """What a process's exit code says: `ended with status 3`, `was killed by SIGSEGV`; real-time signals have numbers alone."""
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _answer(call: Callable[[], object], to: Connection) -> None:
    """The copy's part. One thread: those of OpenMP do not survive a fork."""
    import torch  # here, since who reports an exit code needs none of it

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    faulthandler.disable()  # what kills the copy is told in one line
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    torch.set_num_threads(1)
    try:
        call()
    except Exception:  # told by this process, where it is called again
        to.send(Fate.raised.value)
    else:
        to.send(Fate.returned.value)
