"""What a person sees while a bench runs: live bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

PLAIN_PROGRESS_SECONDS = 10.0
KNOWN_AFTER_SECONDS = 3.0
"""training has to run for so long before a time left is named"""


class Display(Protocol):
    """Takes the events of a bench as they come."""

    def handle(self, event: dict[str, Any]) -> None: ...


class Tracker:
    """What the events add up to: counts, work done, the best run on validation."""

    def __init__(self) -> None:
        self.total = self.done = self.failed = 0
        self.units = self.units_done = 0.0
        self.began: float | None = None
        self.best: dict[str, Any] | None = None

    def handle(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "plan":
                self.total, self.done, self.failed = event["total"], event["done"], event["failed"]
                self.units, self.units_done, self.began = float(event["units"]), 0.0, None
            case "step":
                self.began = self.began or time.monotonic()
                self.units_done = min(self.units_done + event["units"], self.units)
            case "done" if event.get("kind") != "teacher":
                self.done += 1
                val = event["val_top1"]
                if val is not None and (self.best is None or val > self.best["val_top1"]):
                    self.best = event
            case "failed":
                self.failed += 1

    def seconds_left(self) -> float | None:
        """From the work done per second so far; None until that is known."""
        if self.began is None or not self.units_done:
            return None
        spent = time.monotonic() - self.began
        if spent < KNOWN_AFTER_SECONDS:
            return None
        return spent * (self.units - self.units_done) / self.units_done

    def best_words(self) -> str:
        if self.best is None:
            return ""
        setting = f" {self.best['setting']}" if self.best["setting"] else ""
        return f"best so far: {self.best['label']}{setting}, {100 * self.best['val_top1']:.2f} % on validation"


class PlainDisplay:
    """A line for the start, for every run that ends, for notes, and now and then for a long training."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.tracker = Tracker()
        self.last = time.monotonic()

    def handle(self, event: dict[str, Any]) -> None:
        tracker = self.tracker
        tracker.handle(event)
        line = None
        match event["event"]:
            case "plan":
                failed = f", {tracker.failed} failed" if tracker.failed else ""
                line = f"{event['name']}: {tracker.total} runs, {tracker.done} done{failed}"
            case "teacher":
                line = teacher_words(event)
            case "done" | "failed":
                line = f"[{tracker.done + tracker.failed:{len(str(tracker.total))}}/{tracker.total}] {ended_words(event)}"
            case "note" | "waiting":
                line = event["text"]
            case "step" if time.monotonic() - self.last > PLAIN_PROGRESS_SECONDS:
                left = tracker.seconds_left()
                line = f"  {trained_words(event)}; {100 * tracker.units_done / max(tracker.units, 1):.0f} % of the bench" + (
                    f", {clock(left)} left" if left is not None else ""
                )
        if line is not None:
            self.last = time.monotonic()
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveDisplay:
    """One bar for the bench with the time left, one for what each worker trains, and the best so far."""

    def __init__(self, console: Console) -> None:
        self.tracker = Tracker()
        self.bench = Progress(
            TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(), console=console,
        )  # fmt: skip
        self.work = Progress(TextColumn("  {task.description}"), BarColumn(), TextColumn("{task.fields[where]}"), console=console)
        self.bar = self.bench.add_task("preparing", total=1, left="")
        self.bars: dict[int, TaskID] = {}
        self.words = Text("", style="green")
        self.live = Live(Group(self.bench, self.work, self.words), console=console, refresh_per_second=8, transient=True)

    def handle(self, event: dict[str, Any]) -> None:
        self.tracker.handle(event)
        worker = event.get("worker", 0)
        match event["event"]:
            case "plan":
                self.bench.update(self.bar, description=event["name"], total=event["total"], completed=self.tracker.done)
            case "begin":
                words = "teacher" if event["what"] == "teacher" else f"{len(event['ids'])} runs in step"
                self._bar(worker, description=words, total=event["steps"], completed=0, where=f"epoch 1/{event['epochs']}")
            case "step":
                self._bar(worker, completed=event["step"], total=event["steps"], where=f"epoch {event['epoch'] + 1}")
            case "done" | "failed":
                self.live.console.print(
                    ended_words(event), markup=False, highlight=False, style="red" if event["event"] == "failed" else None
                )
            case "teacher":
                self.live.console.print(teacher_words(event), markup=False, highlight=False)
            case "note" | "waiting":
                self.live.console.print(event["text"], style="yellow", markup=False, highlight=False)
        left = self.tracker.seconds_left()
        self.bench.update(
            self.bar, completed=self.tracker.done + self.tracker.failed, left=f"{clock(left)} left" if left is not None else "--:-- left"
        )
        failed = f"{self.tracker.failed} failed  " if self.tracker.failed else ""
        self.words.plain = f"  {failed}{self.tracker.best_words()}"

    def _bar(self, worker: int, **state: Any) -> None:
        if worker not in self.bars:
            self.bars[worker] = self.work.add_task("training", total=1, where="")
        self.work.update(self.bars[worker], **state)


@contextmanager
def open_display(console: Console) -> Iterator[Display]:
    """The display that fits where the output goes; the terminal is left as it was, however the block ends."""
    if not console.is_terminal:
        yield PlainDisplay(console)
        return
    display = LiveDisplay(console)
    with display.live:
        yield display


def ended_words(event: dict[str, Any]) -> str:
    """How a run ended, in a line."""
    setting = f" {event['setting']}" if event["setting"] else ""
    who = f"{event['label']}{setting} seed {event['seed']}"
    if event["event"] == "failed":
        return f"{who}: failed: {event['error']}"
    val = f"val {100 * event['val_top1']:.2f} %  " if event["val_top1"] is not None else ""
    return f"{who}: {val}test {100 * event['test_top1']:.2f} %  {event['seconds']:.1f} s"


def teacher_words(event: dict[str, Any]) -> str:
    val = f"val {100 * event['val_top1']:.2f} %  " if event["val_top1"] is not None else ""
    return f"teacher {event['name']}: {val}test {100 * event['test_top1']:.2f} %"


def trained_words(event: dict[str, Any]) -> str:
    return f"training {len(event['ids'])} run(s), step {event['step']} of {event['steps']}"


def clock(seconds: float) -> str:
    """1:05, or 2:03:04."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
