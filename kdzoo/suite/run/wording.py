"""Events in words."""

from __future__ import annotations

from kdzoo.runs.events import RunDone, RunFailed, RunPaused, TeacherChecked
from kdzoo.suite.plan.config import NONE
from kdzoo.tasks.known import task_named
from kdzoo.text import number_of


def label_words(label: str) -> str:
    """A method's name as a reader knows it."""
    return "student alone" if label == NONE else label


def run_words(event: RunDone | RunFailed | RunPaused) -> str:
    """Which run it is: method, setting, seed."""
    return ", ".join(filter(None, [label_words(event.label), event.setting, f"seed {event.seed}"]))


def ended_words(event: RunDone | RunFailed | RunPaused, *, apart: bool = True) -> str:
    """How a run ended; its seconds where it was trained by itself."""
    if isinstance(event, RunFailed):
        place = ", ".join(filter(None, [event.part and f"in the loss of {event.part}", event.place]))
        return f"failed: {event.error}{f' ({place})' if place else ''}"
    if isinstance(event, RunPaused):
        return f"paused after epoch {event.epoch} of {event.epochs}  {part_words(event.task, 'val', event.val)}".rstrip()
    return f"{scores(event)}  {event.seconds:.1f} s" if apart else scores(event)


def together_words(count: int, seconds: float) -> str:
    """What a cohort took: no run of it has a time of its own."""
    return f"{number_of(count, 'run')} trained together in {clock_words(seconds)}"


def teacher_words(event: TeacherChecked) -> str:
    return f"teacher {event.name}: {scores(event) or 'gives embeddings, which are compared with its students alone'}"


def best_words(best: RunDone) -> str:
    """The run that is best on validation so far; its event has a value on validation."""
    setting = f", {best.setting}" if best.setting else ""
    return f"best single run so far: {label_words(best.label)}{setting}: {part_words(best.task, 'val', best.val)}"


def scores(event: RunDone | TeacherChecked) -> str:
    """The task's headline on validation, where there is one, and on test, as `val top-1 95.6 %  test top-1 94.4 %`."""
    return "  ".join(filter(None, (part_words(event.task, "val", event.val), part_words(event.task, "test", event.test))))


def part_words(task: str, part: str, value: float | None) -> str:
    """A task's headline on one part of the data, as `val top-1 95.6 %`; empty where there is no value."""
    headline = task_named(task).headline
    return "" if value is None else f"{part} {headline.heading} {headline.brief(value)}"


def clock_words(seconds: float | None) -> str:
    """1:05, or 2:03:04; `--:--` for what is not known."""
    if seconds is None:
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
