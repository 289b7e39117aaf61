"""Progress as lines, for a log: a line for the start, for every run that ends, for notes, and now and then."""

from __future__ import annotations

import time

from rich.console import Console
from rich.text import Text

from kdzoo.runs.events import (
    CommandToRun,
    DataLine,
    Event,
    Note,
    PlanMade,
    RunDone,
    RunFailed,
    RunPaused,
    StepsTaken,
    Summary,
    TeacherChecked,
    TrainingBegun,
)
from kdzoo.suite.run.progress import Clock, Tracker
from kdzoo.suite.run.wording import clock_words, ended_words, run_words, teacher_words, together_words
from kdzoo.text import number_of, one_line

PROGRESS_SECONDS = 10.0
"""between two progress lines about one training, where there is no terminal"""


class PlainDisplay:
    """A line for the start, for every run that ends, for notes, and now and then for a long training."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self.console, self.clock = console, clock
        self.tracker = Tracker(clock)
        self.shown_notes = ShownNotes()
        self.printed_at = clock()

    def handle(self, event: Event) -> None:
        ended = isinstance(event, RunDone | RunFailed | RunPaused)
        apart = self.tracker.apart(event.id) if isinstance(event, RunDone | RunFailed) else True
        self.tracker.handle(event)
        together = self.tracker.together if ended else None
        for line in (self._line(event, apart), together_words(*together) if together is not None else None):
            if line is not None:
                self.printed_at = self.clock()
                self.console.print(Text(one_line(line)), soft_wrap=True, highlight=False)

    def _line(self, event: Event, apart: bool) -> str | None:
        """The line for an event. apart: whether the run that it is about was trained by itself."""
        tracker = self.tracker
        match event:
            case TrainingBegun(step=step) if step:
                training = tracker.training[event.worker]
                return f"training {training.phrase}: {training.where(short=False)}"
            case PlanMade(total=total) if total:  # nothing is planned yet while the gradient ratios that set weights are measured
                failed = f", {event.failed} failed" if event.failed else ""
                return f"{event.name}: {number_of(total, 'run')}, {event.done} done{failed}"
            case RunDone(role="teacher"):
                return f"teacher trained: {ended_words(event)}"
            case RunDone(role="pretrain stage"):
                return f"pretrain stage trained: {run_words(event)}"
            case RunFailed(role="pretrain stage"):
                return f"pretrain stage failed: {run_words(event)}"
            case RunDone() | RunFailed() | RunPaused():
                number = tracker.count("done") + tracker.count("failed")
                line = f"[{number:{len(str(tracker.total))}}/{tracker.total}] {run_words(event)}: {ended_words(event, apart=apart)}"
                return f"{line}  best on validation so far" if tracker.best is event else line
            case TeacherChecked():
                return teacher_words(event)
            case DataLine(text) | Summary(text) | CommandToRun(text):
                return text
            case Note(text) if self.shown_notes.first(text):
                return text
            case StepsTaken(worker=worker) if self.clock() - self.printed_at >= PROGRESS_SECONDS and worker in tracker.training:
                training = tracker.training[worker]
                work = f"{100 * tracker.share:.0f} % of the work"
                time_left = f"{clock_words(tracker.seconds_left())} left"
                return f"training {training.phrase}: {training.where(short=False)}; {work}, {time_left}"
        return None


class ShownNotes:
    """Which notes have been shown: eight runs of a cohort may say the same."""

    def __init__(self) -> None:
        self._texts: set[str] = set()

    def first(self, text: str) -> bool:
        new = text not in self._texts
        self._texts.add(text)
        return new
