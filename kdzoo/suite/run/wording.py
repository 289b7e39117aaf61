"""Events in words."""

from __future__ import annotations

from kdzoo.runs.events import RunDone, RunFailed, TeacherChecked
from kdzoo.suite.plan.config import NONE
from kdzoo.text import number_of


def label_words(label: str) -> str:
    """A method's name as a reader knows it."""
    return "student alone" if label == NONE else label


def run_words(event: RunDone | RunFailed) -> str:
    """Which run it is: method, setting, seed."""
    return " ".join(filter(None, [label_words(event.label), event.setting, f"seed {event.seed}"]))


def ended_words(event: RunDone | RunFailed, *, apart: bool = True) -> str:
    """How a run ended; its seconds where it was trained by itself."""
    if isinstance(event, RunFailed):
        place = ", ".join(filter(None, [event.part and f"in the loss of {event.part}", event.where]))
        return f"failed: {event.error}{f' ({place})' if place else ''}"
    return f"{scores(event)}  {event.seconds:.1f} s" if apart else scores(event)


def together_words(count: int, seconds: float) -> str:
    """What a cohort took: no run of it has a time of its own."""
    return f"{number_of(count, 'run')} trained together in {clock_words(seconds)}"


def teacher_words(event: TeacherChecked) -> str:
    return f"teacher {event.name}: {scores(event)}"


def best_words(best: RunDone) -> str:
    setting = f" {best.setting}" if best.setting else ""
    return f"best so far {label_words(best.label)}{setting}: val {100 * (best.val_top1 or 0.0):.1f} %"


def scores(event: RunDone | TeacherChecked) -> str:
    """Validation, where there is one, and test, as `val 95.6 %  test 94.4 %`."""
    both = {"val": event.val_top1, "test": event.test_top1}
    return "  ".join(f"{part} {100 * value:.1f} %" for part, value in both.items() if value is not None)


def clock_words(seconds: float | None) -> str:
    """1:05, or 2:03:04; `--:--` for what is not known."""
    if seconds is None:
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
