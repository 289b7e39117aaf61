"""Progress in a notebook: the bars of a terminal as one output of the cell, which is replaced as the bench goes on; notes above them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.jupyter import JupyterMixin
from rich.text import Text

from kdzoo.runs.events import Event
from kdzoo.suite.run.progress import Clock
from kdzoo.suite.run.progress_bar import LiveDisplay
from kdzoo.text import one_line

LEAST_SECONDS = 0.5
"""between two pictures: each is a message to the browser"""


class NotebookDisplay(LiveDisplay, JupyterMixin):
    """The bars with the notes that came before them, as rich shows its renderables in a notebook."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        super().__init__(console, clock)
        self._notes: list[Text] = []
        self._output: Any = None
        self._shown_at = -LEAST_SECONDS

    def handle(self, event: Event) -> None:
        super().handle(event)
        if self.clock() - self._shown_at >= LEAST_SECONDS:
            self.show()

    def show(self) -> None:
        """Put the present picture in place of the one before."""
        from IPython.display import display  # there is one wherever there is a notebook

        self._shown_at = self.clock()
        if self._output is None:
            self._output = display(self, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._output.update(self)

    def _above(self, text: str, style: str) -> None:
        self._notes.append(Text(one_line(text), style=style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._notes
        yield from super().__rich_console__(console, options)


@contextmanager
def open_notebook_display(console: Console) -> Iterator[NotebookDisplay]:
    """The display of a notebook; what stays in the cell is how far the bench came, however the block ends."""
    display = NotebookDisplay(console)
    try:
        yield display
    finally:
        display.settle()
        display.show()
