"""Where a run's numbers go while it trains: the port, and several loggers as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

LogRecord = Mapping[str, Any]


class Logger(Protocol):
    """Logs one run: one record per epoch, then its result or its failure; a run that is closed without either was stopped."""

    def epoch(self, record: LogRecord) -> None: ...

    def finish(self, result: LogRecord) -> None: ...

    def fail(self, text: str) -> None: ...

    def close(self) -> None: ...


class LoggerGroup:
    """Hands everything to several loggers, in order; all are closed, whatever one of them raises."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._loggers = tuple(loggers)

    def epoch(self, record: LogRecord) -> None:
        for logger in self._loggers:
            logger.epoch(record)

    def finish(self, result: LogRecord) -> None:
        for logger in self._loggers:
            logger.finish(result)

    def fail(self, text: str) -> None:
        for logger in self._loggers:
            logger.fail(text)

    def close(self) -> None:
        with ExitStack() as stack:
            for logger in reversed(self._loggers):
                stack.callback(logger.close)
