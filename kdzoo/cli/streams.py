"""Standard output and error that outlast their readers: a closed pipe, a full disk or a terminal without UTF-8 stops no training."""

from __future__ import annotations

import codecs
import errno
import os
import sys
from typing import Any, TextIO, cast

from kdzoo.text import PLAIN

GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""what writing to a closed pipe, a terminal that is gone or a closed descriptor raises"""
HANDLER = "kdzoo.plain"


class DurableStream:
    """A text stream that discards what is written once its reader is gone, or once it takes no more; everything else is the stream's own.

    fault: why it takes no more, such as a full disk; None where it does, and where nobody is left to read it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.fault: str | None = None

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._silence(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._silence(error)

    def _silence(self, error: OSError) -> None:
        """Lead the stream's descriptor nowhere, so that what is in its buffer can be written."""
        if error.errno not in GONE:
            self.fault = error.strerror or str(error)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def make_streams_durable() -> list[DurableStream]:
    """Make this process's standard streams last; both of them, output first."""
    codecs.register_error(HANDLER, _plain)
    streams = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started this: the next file that is opened would take its descriptor
            descriptor = 1 if name == "stdout" else 2
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
            stream = os.fdopen(descriptor, "w", closefd=False)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=HANDLER)
        streams.append(DurableStream(stream))
        setattr(sys, name, cast(TextIO, streams[-1]))
    return streams


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that an encoding lacks, and where to go on."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end
