"""What a person sees while a bench runs: progress bars on a terminal and in a notebook, lines anywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.live import Live

from kdzoo.runs.events import Event
from kdzoo.suite.run.notebook_display import open_notebook_display
from kdzoo.suite.run.progress_bar import LiveDisplay
from kdzoo.suite.run.progress_lines import PlainDisplay


class Display(Protocol):
    """Takes the events of a bench as they come."""

    def handle(self, event: Event) -> None: ...


@contextmanager
def open_display(console: Console) -> Iterator[Display]:
    """The display that fits where the output goes; the terminal is left as it was, however the block ends."""
    if console.is_jupyter and not console.quiet:
        with open_notebook_display(console) as in_notebook:
            yield in_notebook
        return
    if not (console.is_interactive and console.file.isatty()):
        yield PlainDisplay(console)
        return
    display = LiveDisplay(console)
    with Live(display, console=console, refresh_per_second=5):
        try:
            yield display
        finally:
            display.settle()
