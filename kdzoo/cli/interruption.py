"""Ctrl-C and a polite kill, told by an exception and remembered, since code that is being imported may swallow exceptions."""

from __future__ import annotations

import signal
from types import FrameType

INTERRUPTED = 130
"""the exit status"""
MESSAGE = "interrupted; run the same command to resume"
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupted(BaseException):
    """Ctrl-C or a polite kill. Not an Exception, so that nothing on the way up takes it for a run's failure."""


class Interruption:
    """The handler of signals that end a command; `came` once one has come."""

    def __init__(self) -> None:
        self.came = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        raise Interrupted(MESSAGE)


def catch_signals() -> None:
    """Have signals raise Interrupted from now on; those that are ignored, as under nohup, stay ignored."""
    interruption = Interruption()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interruption.handle)


def was_interrupted() -> bool:
    """Whether a signal has come, whatever became of the exception that told it."""
    handlers = [getattr(signal.getsignal(number), "__self__", None) for number in SIGNALS]
    return any(isinstance(one, Interruption) and one.came for one in handlers)


def raise_if_interrupted() -> None:
    """Raise Interrupted where a signal has come whose exception was swallowed."""
    if was_interrupted():
        raise Interrupted(MESSAGE)
