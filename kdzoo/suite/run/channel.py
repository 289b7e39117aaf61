"""The channel on which a worker tells its driver what happens: one JSON object a line, on a pipe of its own. Free of torch.

The pipe is neither standard output nor standard error, so nothing that a library, a plugin or a site hook prints gets
between the events, and neither end believes it: what is no event is counted, and a writer that finds the pipe gone, or
itself in a process that was forked from the worker, ends its process.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from kdzoo.runs.events import Event, decode, encode
from kdzoo.text import LONGEST_REASON, shortened

CHANNEL_LOST = 70
"""the exit status of a worker that can no longer tell its driver anything"""
FORKED = 71
"""the exit status of a process that was forked from a worker and came back to the worker's own work"""
PROCESSES_BROKEN = 72
"""the exit status of a worker that lost one of the processes which train its runs with it"""
POLL_SECONDS = 0.2
DRAIN_SECONDS = 2.0
"""how long the last words of a dead worker are read, if another process keeps the pipe open and continues to write"""
BLOCK = 1 << 16


class Sender:
    """The worker's end."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._process = os.getpid()
        self._pipe = _identity(descriptor)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._close)  # a forked process must not keep the pipe open

    def send(self, event: Event) -> None:
        """Write an event; nothing happens where the driver is gone. Ends the process where the pipe is not the worker's."""
        self.check()
        # A line break goes first too: half a line that something else has written must not spoil the event.
        content = b"\n" + encode(event).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):  # the end of the jobs tells the worker that its driver is gone
            while content:
                content = content[os.write(self._descriptor, content) :]

    def check(self) -> None:
        """End this process where it is a fork of the worker, which must not train the same runs, or has lost its pipe."""
        if os.getpid() != self._process:
            os._exit(FORKED)
        try:
            whole = _identity(self._descriptor) == self._pipe
        except OSError:
            whole = False
        if not whole:
            print("the channel to the driver was closed by something in this process; the worker ends", file=sys.stderr, flush=True)
            os._exit(CHANNEL_LOST)

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


class Receiver:
    """The driver's end: the events of a process until it has ended, and how many lines were none."""

    def __init__(self, descriptor: int, process: subprocess.Popen[Any]) -> None:
        self._descriptor = descriptor
        self._process = process
        self.strays = 0
        self.first_stray = ""

    def events(self) -> Iterator[Event]:
        """Every event, until the process is dead and its pipe empty, or nobody can write to the pipe any more."""
        half = b""
        for block in self._blocks():
            *lines, half = (half + block).split(b"\n")
            for line in lines:
                yield from self._parse(line)
        yield from self._parse(half)

    def _blocks(self) -> Iterator[bytes]:
        deadline = float("inf")
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                ready = selector.select(POLL_SECONDS)
                dead = self._process.poll() is not None
                if ready:
                    block = os.read(self._descriptor, BLOCK)
                    if not block:
                        return
                    yield block
                elif dead:
                    return  # the pipe is empty; another process may hold it open
                if dead:
                    deadline = min(deadline, time.monotonic() + DRAIN_SECONDS)

    def _parse(self, line: bytes) -> Iterator[Event]:
        if not line.strip():
            return
        if (event := decode(line)) is not None:
            yield event
            return
        self.strays += 1
        self.first_stray = self.first_stray or shortened(line[:LONGEST_REASON].decode(errors="replace"), 80)


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
