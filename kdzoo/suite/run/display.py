"""What a person sees while a bench runs: live bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kdzoo.suite.plan.config import NONE
from kdzoo.suite.plan.jobs import Event
from kdzoo.text import number_of, one_line, shortened

PROGRESS_SECONDS = 10.0
"""between two progress lines about one training, where there is no terminal"""
KNOWN_AFTER_SECONDS = 3.0
"""how long training has to run before a time left is told"""
WINDOW_SECONDS = 60.0
"""the speed is that of the last minute: a teacher's steps and its students' differ"""
NARROW = 80
"""below this number of columns the times have a line of their own"""
BAR = 10
"""columns that a bar keeps beside a long name, where the terminal has them"""

Clock = Callable[[], float]


class Display(Protocol):
    """Takes the events of a bench as they come."""

    def handle(self, event: Event) -> None: ...


@contextmanager
def open_display(console: Console) -> Iterator[Display]:
    """The display that fits where the output goes; the terminal is left as it was, however the block ends."""
    if not (console.is_interactive and console.file.isatty()):
        yield PlainDisplay(console)
        return
    display = LiveDisplay(console)
    with Live(display, console=console, refresh_per_second=5):
        try:
            yield display
        finally:
            display.tracker.training.clear()  # what stays on the screen is how far the bench came
            if display.tracker.share == 1.0:
                display.tracker.best = None  # one run's validation is no result beside the table of the finished bench


class Training:
    """What one worker trains now. together: how many runs began in lockstep; seconds: what those that ended took, all of them."""

    def __init__(self, event: Event) -> None:
        self.what, self.open = event["what"], set(event["ids"])
        self.name: str = event.get("name", "")
        self.together, self.seconds = len(self.open), 0.0
        self.epochs: int = event["epochs"]
        self.steps: int = event["steps"]
        self.epoch, self.step = 0, event.get("step", 0)
        self.resumed_after = self.step * self.epochs // max(self.steps, 1)
        self.units_a_step = 0.0

    def advance(self, event: Event) -> None:
        if event["step"] > self.step and event["ids"] and self.step:
            self.units_a_step = event["units"] / len(event["ids"]) / (event["step"] - self.step)
        self.epoch, self.step = event["epoch"] + 1, event["step"]

    @property
    def units_left_a_run(self) -> float:
        return self.units_a_step * float(self.steps - self.step)

    def where(self, *, short: bool) -> str:
        if not self.epoch and self.step:
            at = f"epoch {self.resumed_after + 1} of {self.epochs}"
            return at if short else f"resuming at {at}"
        if not self.epoch:
            return "starting"
        return f"{self.epoch}/{self.epochs}" if short else f"epoch {self.epoch} of {self.epochs}"

    @property
    def phrase(self) -> str:
        """`teacher resnet56`, `at`, `6 runs (1 at, 4 hinton, 1 student alone)`."""
        count, colon, named = self.words[0].partition(": ")
        return f"{count} ({named})" if colon else count

    @property
    def words(self) -> tuple[str, ...]:
        """What trains, in ever fewer words: `6 runs: 1 at, 4 hinton, 1 student alone`, `6 runs of 3 methods`, `6 runs`."""
        if self.what == "teacher":
            return (f"teacher {self.name}".strip(), "teacher")
        labels = Counter(run_id.rpartition("-")[0] or run_id for run_id in sorted(self.open))
        if len(self.open) == 1:
            return (f"{'first stage of ' if self.what == 'first stage' else ''}{label_words(next(iter(labels)))}",)
        count = number_of(len(self.open), "first stage" if self.what == "first stage" else "run")
        named = ", ".join(f"{number} {label_words(label)}" for label, number in labels.items())
        return (f"{count}: {named}", f"{count} of {number_of(len(labels), 'method')}", count)


class Tracker:
    """What the events add up to: runs that ended, work done and its speed, what trains now, the best run on validation."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        self.started = clock()
        self.name, self.total = "preparing", 0
        self.before: dict[str, int] = {"done": 0, "failed": 0}
        self.ended: dict[str, str] = {}
        self.units = self.units_done = 0.0
        self.history: deque[tuple[float, float]] = deque()
        self.training: dict[int, Training] = {}
        self.best: Event | None = None
        self.processes, self.teacher_units = 1, 0.0
        self.alike = True
        """whether teachers are trained as their students are, so that their speed tells of theirs"""
        self.teachers_speed: float | None = None
        """units a second and process while teachers alone were trained, for students that have not begun"""
        self.students_began = False
        self.together: tuple[int, float] | None = None
        """of the cohort whose last run has just ended: how many runs, and how many seconds all of them took"""

    def handle(self, event: Event) -> None:
        match event["event"]:
            case "plan":
                self.name, self.total = event["name"], event["total"]
                self.before, self.ended = {"done": event["done"], "failed": event["failed"]}, {}
                self.units, self.units_done = float(event["units"]), 0.0
                self.processes, self.teacher_units = event.get("processes", 1), float(event.get("teacher_units", 0))
                self.alike = event.get("alike", True)
                self.teachers_speed, self.students_began = None, False
                self.history.clear()
                self.training.clear()
            case "begin":
                if event["what"] == "teacher":
                    self.teacher_units -= event.get("units", 0.0)
                elif not self.students_began:
                    self._begin_students()
                self.training[event.get("worker", 0)] = Training(event)
                self.units -= event.get("units", 0.0)
                if not self.history:
                    self.history.append((self.clock(), self.units_done))
            case "step":
                self._step(event)
            case "done" | "failed" as how:
                self._end(event, how)

    def _step(self, event: Event) -> None:
        if event.get("worker", 0) in self.training:
            self.training[event.get("worker", 0)].advance(event)
        self.units_done += event["units"]
        self.history.append((self.clock(), self.units_done))
        while len(self.history) > 20 and self.history[-1][0] - self.history[0][0] > WINDOW_SECONDS:
            self.history.popleft()

    def _begin_students(self) -> None:
        """Teachers were trained by fewer processes than students will be, and at another speed: it is measured anew."""
        speed = self._speed()
        self.teachers_speed = speed / max(len(self.training), 1) if speed is not None and self.alike else None
        self.students_began = True
        self.history.clear()

    def _end(self, event: Event, how: str) -> None:
        self.together = None
        for worker, training in list(self.training.items()):
            if event["id"] in training.open:
                training.seconds += event.get("seconds", 0.0)
                self.units -= training.units_left_a_run if how == "failed" else 0.0
                training.open.discard(event["id"])
                if not training.open:
                    del self.training[worker]
                    self.together = (training.together, training.seconds) if training.together > 1 else None
        if event.get("kind") is not None:  # a teacher or a first stage is none of the plan's runs
            return
        self.ended[event["id"]] = how
        val = event.get("val_top1")
        if how == "done" and val is not None and (self.best is None or val > self.best["val_top1"]):
            self.best = event

    def count(self, how: str) -> int:
        """How many of the plan's runs are `done` or `failed`."""
        return self.before[how] + sum(ending == how for ending in self.ended.values())

    @property
    def share(self) -> float:
        """The part of the work that is done, 0 to 1; all of it once every run has ended."""
        if self.total and self.count("done") + self.count("failed") >= self.total:
            return 1.0
        return min(max(self.units_done / self.units, 0.0), 0.99) if self.units > 0 else 0.0

    def seconds_left(self) -> float | None:
        """The work left at the measured speed; None until that is known.

        While teachers train, their students are expected to go as fast in each of all processes. Where they are trained in
        another way, as by a teacher that gets a classifier alone, nothing is known before they begin.
        """
        if self.share == 1.0:
            return 0.0
        left, speed = max(self.units - self.units_done, 0.0), self._speed()
        if self.students_began:
            expected = None if self.teachers_speed is None else self.teachers_speed * self.processes
            speed = speed or expected
            return None if speed is None else left / speed
        if speed is None:
            return None
        teachers = min(max(self.teacher_units - self.units_done, 0.0), left)
        if left > teachers and not self.alike:
            return None
        more = max(self.processes / max(len(self.training), 1), 1.0)
        return teachers / speed + (left - teachers) / (speed * more)

    def _speed(self) -> float | None:
        """Units a second of the last minute; None until training has run for a while."""
        if not self.history or self.clock() - self.history[0][0] < KNOWN_AFTER_SECONDS:
            return None
        (then, before), now = self.history[0], self.clock()
        return (self.units_done - before) / (now - then) if self.units_done > before else None

    def apart(self, run_id: str) -> bool:
        """Whether a run that trains now does so by itself, so that its seconds are its own."""
        return all(training.together == 1 for training in self.training.values() if run_id in training.open)


class PlainDisplay:
    """A line for the start, for every run that ends, for notes, and now and then for a long training."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self.console, self.clock = console, clock
        self.tracker = Tracker(clock)
        self.noted = Noted()
        self.told = clock()

    def handle(self, event: Event) -> None:
        apart = self.tracker.apart(event.get("id", ""))
        self.tracker.handle(event)
        together = self.tracker.together if event["event"] in ("done", "failed") else None
        for line in (self._line(event, apart), together_words(*together) if together is not None else None):
            if line is not None:
                self.told = self.clock()
                self.console.print(Text(one_line(line)), soft_wrap=True, highlight=False)

    def _line(self, event: Event, apart: bool) -> str | None:
        """The line for an event. apart: whether the run that it is about was trained by itself."""
        tracker = self.tracker
        match event["event"]:
            case "begin" if event.get("step", 0):
                training = tracker.training[event.get("worker", 0)]
                return f"training {training.phrase}: {training.where(short=False)}"
            case "plan" if event["total"]:  # nothing is planned yet while what weights hang on is measured
                failed = f", {event['failed']} failed" if event["failed"] else ""
                return f"{event['name']}: {number_of(event['total'], 'run')}, {event['done']} done{failed}"
            case "done" if event.get("kind") == "teacher":
                return f"teacher trained: {ended_words(event)}"
            case "done" | "failed" if event.get("kind") == "first stage":
                return f"first stage trained: {run_words(event)}" if event["event"] == "done" else f"first stage failed: {run_words(event)}"
            case "done" | "failed":
                number = tracker.count("done") + tracker.count("failed")
                best = f"   {best_words(tracker.best)}" if tracker.best is not None else ""
                return f"[{number:{len(str(tracker.total))}}/{tracker.total}] {run_words(event)}: {ended_words(event, apart=apart)}{best}"
            case "teacher":
                return teacher_words(event)
            case "data" | "summary":
                return str(event["text"])
            case "note" | "waiting" if self.noted.first(event["text"]):
                return str(event["text"])
            case "step" if self.clock() - self.told >= PROGRESS_SECONDS and event.get("worker", 0) in tracker.training:
                training = tracker.training[event.get("worker", 0)]
                work = f"{100 * tracker.share:.0f} % of the work"
                time_left = f"{clock_words(tracker.seconds_left())} left"
                return f"training {training.phrase}: {training.where(short=False)}; {work}, {time_left}"
        return None


class LiveDisplay:
    """One bar for the bench with the time left, one for what each worker trains, and the best so far; notes go above."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self.console, self.clock = console, clock
        self.tracker = Tracker(clock)
        self.noted = Noted()

    def handle(self, event: Event) -> None:
        self.tracker.handle(event)
        match event["event"]:
            case "begin" if event.get("step", 0):
                training = self.tracker.training[event.get("worker", 0)]
                self._above(f"training {training.phrase}: {training.where(short=False)}", "")
            case "failed":
                self._above(f"{run_words(event)}: {ended_words(event)}", "red")
            case "teacher":
                self._above(teacher_words(event), "")
            case "data" | "summary":
                self._above(event["text"], "")
            case "note" | "waiting" if self.noted.first(event["text"]):
                self._above(event["text"], "yellow")

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


class Noted:
    """Which notes have been shown: eight runs of a cohort may say the same."""

    def __init__(self) -> None:
        self._texts: set[str] = set()

    def first(self, text: str) -> bool:
        new = text not in self._texts
        self._texts.add(text)
        return new


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


def label_words(label: str) -> str:
    """A method's name as a reader knows it."""
    return "student alone" if label == NONE else label


def run_words(event: Event) -> str:
    """Which run it is: method, setting, seed."""
    return " ".join(filter(None, [label_words(event["label"]), event.get("setting", ""), f"seed {event['seed']}"]))


def ended_words(event: Event, *, apart: bool = True) -> str:
    """How a run ended; its seconds where it was trained by itself."""
    if event["event"] == "failed":
        place = f" ({event['where']})" if event.get("where") else ""
        return f"failed: {event['error']}{place}"
    return f"{scores(event)}  {event['seconds']:.1f} s" if apart else scores(event)


def together_words(count: int, seconds: float) -> str:
    """What a cohort took: no run of it has a time of its own."""
    return f"{number_of(count, 'run')} trained together in {clock_words(seconds)}"


def teacher_words(event: Event) -> str:
    return f"teacher {event['name']}: {scores(event)}"


def best_words(best: Event) -> str:
    setting = f" {best['setting']}" if best.get("setting") else ""
    return f"best so far {label_words(best['label'])}{setting}: val {100 * best['val_top1']:.1f} %"


def scores(event: Event) -> str:
    """Validation, where there is one, and test, as `val 95.6 %  test 94.4 %`."""
    both = {"val": event["val_top1"], "test": event["test_top1"]}
    return "  ".join(f"{part} {100 * value:.1f} %" for part, value in both.items() if value is not None)


def clock_words(seconds: float | None) -> str:
    """1:05, or 2:03:04; `--:--` for what is not known."""
    if seconds is None:
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
