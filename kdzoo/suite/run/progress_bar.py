"""Progress on a terminal: a bar for the bench with the time left, one for what each worker trains; notes go above."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kdzoo.runs.events import CommandToRun, DataLine, Event, Note, RunFailed, Summary, TeacherChecked, TrainingBegun
from kdzoo.suite.run.progress import Clock, Tracker
from kdzoo.suite.run.progress_lines import ShownNotes
from kdzoo.suite.run.wording import best_words, clock_words, ended_words, run_words, teacher_words
from kdzoo.text import one_line, shortened

NARROW = 80
"""below this number of columns the times have a line of their own"""
BAR = 10
"""columns that a bar keeps beside a long name, where the terminal has them"""


class LiveDisplay:
    """One bar for the bench with the time left, one for what each worker trains, and the best so far; notes go above."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self.console, self.clock = console, clock
        self.tracker = Tracker(clock)
        self.shown_notes = ShownNotes()

    def handle(self, event: Event) -> None:
        self.tracker.handle(event)
        match event:
            case TrainingBegun(step=step) if step:
                training = self.tracker.training[event.worker]
                self._above(f"training {training.phrase}: {training.where(short=False)}", "")
            case RunFailed():
                self._above(f"{run_words(event)}: {ended_words(event)}", "red")
            case TeacherChecked():
                self._above(teacher_words(event), "")
            case DataLine(text) | Summary(text) | CommandToRun(text):
                self._above(text, "")
            case Note(text) if self.shown_notes.first(text):
                self._above(text, "yellow")

    def settle(self) -> None:
        """Leave what is to stay once training is over: how far the bench came."""
        self.tracker.training.clear()
        if self.tracker.share == 1.0:
            self.tracker.best = None  # one run's validation is no result beside the table of the finished bench

    def _above(self, text: str, style: str) -> None:
        self.console.print(Text(one_line(text), style=style), highlight=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        tracker, width = self.tracker, options.max_width
        narrow = width < NARROW
        counts = f"{tracker.count('done')}/{tracker.total} runs {100 * tracker.share:3.0f} %" if tracker.total else ""
        times = f"{clock_words(tracker.clock() - tracker.started)} elapsed, {clock_words(tracker.seconds_left())} left"
        rows = [Row((tracker.name,), tracker.share, counts if narrow else f"{counts}   {times}".strip(), "bold")]
        for _, training in sorted(tracker.training.items()):
            rows.append(Row(training.words, training.step / max(training.steps, 1), training.where(short=narrow)))
        yield bars(rows, width)
        if narrow:
            yield Text(times)
        failed = f"{tracker.count('failed')} failed   " if tracker.count("failed") else ""
        best = shortened(best_words(tracker.best), width - len(failed)) if tracker.best is not None else ""
        if failed or best:
            yield Text.assemble((failed, "red"), (best, "green"), no_wrap=True)


@dataclass(frozen=True)
class Row:
    """A bar: its names, each shorter than the one before, the share that is done, and a few words."""

    names: Sequence[str]
    share: float
    words: str
    style: str = ""

    def name(self, width: int) -> str:
        """The longest of its names that fits."""
        names = list(map(one_line, self.names))
        return next((name for name in names if cell_len(name) <= width), names[-1])


def bars(rows: Sequence[Row], width: int) -> Table:
    """A name, a bar and a few words to a row; the bar takes what the words leave."""
    table = Table.grid(padding=(0, 1, 0, 0), expand=True)
    room = width - max(cell_len(row.words) for row in rows) - BAR - 2
    most = max(width // 3, room, 8)
    names = [row.name(most) for row in rows]
    table.add_column(width=min(max(map(cell_len, names)), most), no_wrap=True, overflow="ellipsis")
    table.add_column(ratio=1, min_width=4)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for row, name in zip(rows, names, strict=True):
        table.add_row(Text(name, row.style), ProgressBar(total=1.0, completed=min(row.share, 1.0)), row.words)
    return table
