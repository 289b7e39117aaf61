"""Shows something that changes until it ends: in place on a terminal, a line for every change anywhere else."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from kdzoo.cli.output import print_text, print_view, wrapped
from kdzoo.suite.run.wording import clock_words
from kdzoo.text import in_encoding

LEAST_SECONDS = 2.0
"""between two readings"""
PROCESSOR_SHARE = 0.05
"""the share of a processor that reading may take: what is watched needs the processors itself"""
WINDOW_SECONDS = 600.0
"""seconds over which the speed is measured that the time left is computed from"""
LEAST_SECONDS_TO_ESTIMATE = 20.0
"""seconds of watching before a time left is shown"""

Part = str | RenderableType
"""a paragraph, which a terminal breaks between words, or a table"""


@dataclass(frozen=True)
class View:
    """What is to be seen at one moment. share: of the work that is done, 0 to 1. ended: whether nothing is left that may change.

    running: whether any process trains a run.
    """

    summary: str
    parts: Sequence[Part]
    share: float
    ended: bool
    running: bool


def print_parts(parts: Sequence[Part]) -> None:
    """Print paragraphs and tables one below the other."""
    for part in parts:
        if isinstance(part, str):
            print_text(part)
        else:
            print_view(part)


def watch(look: Callable[[], View], screen: Console) -> None:
    """Show what `look` sees until nothing is left that may change; Ctrl-C ends it before."""
    pace = Pace()
    if not (screen.is_terminal and screen.file.isatty()):
        _watch_in_lines(look, screen, pace)
        return
    with Live(console=screen, auto_refresh=False) as live:
        while True:
            view, seconds = _timed(look)
            pace.add(time.monotonic(), view.share)
            line = f"{view.summary}   {pace.words(running=view.running)}   (every {seconds:.0f} s, Ctrl-C ends this)"
            above = view.summary if view.ended else line
            texts = [above, *view.parts]
            live.update(Group(*(_on_screen(part, screen) for part in texts)), refresh=True)
            if view.ended:
                return
            time.sleep(seconds)


def _watch_in_lines(look: Callable[[], View], screen: Console, pace: Pace) -> None:
    last = None
    while True:
        view, seconds = _timed(look)
        pace.add(time.monotonic(), view.share)
        if view.ended:
            print_parts([view.summary, *view.parts])
            return
        if view.summary != last:
            print_text(f"{time.strftime('%H:%M:%S')} {view.summary}   {pace.words(running=view.running)}")
            last = view.summary
        time.sleep(seconds)


def _timed(look: Callable[[], View]) -> tuple[View, float]:
    """What is seen, and how many seconds to wait before the next look."""
    began = time.process_time()
    view = look()
    return view, max(LEAST_SECONDS, (time.process_time() - began) / PROCESSOR_SHARE)


def _on_screen(part: Part, screen: Console) -> RenderableType:
    return Text(in_encoding(wrapped(part, screen.width), screen.encoding)) if isinstance(part, str) else part


class Pace:
    """How fast the share of the work that is done grows."""

    def __init__(self) -> None:
        self._history: deque[tuple[float, float]] = deque()

    def add(self, now: float, share: float) -> None:
        """Note the share at a moment. What went backwards, because more was planned, is another work."""
        if self._history and share < self._history[-1][1]:
            self._history.clear()
        self._history.append((now, share))
        while now - self._history[0][0] > WINDOW_SECONDS:
            self._history.popleft()

    def seconds_left(self) -> float | None:
        """The work left at the speed of the last minutes; None until that is known."""
        (then, before), (now, share) = self._history[0], self._history[-1]
        if now - then < LEAST_SECONDS_TO_ESTIMATE or share <= before:
            return None
        return (1 - share) * (now - then) / (share - before)

    def words(self, *, running: bool) -> str:
        """`62 %, 0:12:30 left`; `62 %, no process trains a run` where none is running."""
        left = f"{clock_words(self.seconds_left())} left" if running else "no process trains a run"
        return f"{100 * self._history[-1][1]:.0f} %, {left}"
