"""What happens while a bench runs: one class for each kind of event, and the one form in which they are written. Free of torch.

Workers send events to the suite, the suite hands them to a display. `encode` and `decode` are the only way in or out
of text: every field is checked on both ways.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import ClassVar, Literal, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

Role = Literal["student", "teacher", "pretrain stage"]
"""what a run is for: a run of the plan, one that its students learn from, or one that they start from"""


@dataclass(frozen=True)
class _Event:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class Note(_Event):
    """Something that a reader should know; the same note is shown once."""

    text: str


@dataclass(frozen=True)
class DataLine(_Event):
    """A line about the bench's data."""

    text: str


@dataclass(frozen=True)
class Summary(_Event):
    """A line about the bench as a whole, at its end."""

    text: str


@dataclass(frozen=True)
class CommandToRun(_Event):
    """A command that the reader is to run."""

    text: str


@dataclass(frozen=True)
class PlanMade(_Event):
    """What is to be done. units: the work that is left; teacher_units: the part of it that trains teachers.

    total, done, failed: runs of the plan; 0 while nothing but measurements is planned. alike: whether teachers are trained
    as their students are, so that the speed of one predicts that of the other.
    """

    name: str
    units: float
    total: int
    done: int
    failed: int
    teacher_units: float = 0.0
    processes: int = 1
    alike: bool = True


@dataclass(frozen=True)
class TrainingBegun(_Event):
    """A cohort starts, or resumes, at `step` of `steps`. units: the work that its checkpoints hold already. name: of a teacher."""

    role: Role
    ids: tuple[str, ...]
    epochs: int
    steps: int
    step: int = 0
    units: float = 0.0
    name: str = ""
    worker: int = 0


@dataclass(frozen=True)
class StepsTaken(_Event):
    """A cohort has come to `step` of `steps`, in the epoch numbered `epoch` from 0. ids: its runs that have not failed."""

    ids: tuple[str, ...]
    epoch: int
    step: int
    steps: int
    units: float
    worker: int = 0


@dataclass(frozen=True)
class MemberFailed(_Event):
    """A run has failed within its cohort, which trains on; its folder says why."""

    id: str


@dataclass(frozen=True)
class RunDone(_Event):
    """A run is trained and its result is written. task: by name; val, test: its headline, val None without validation images."""

    id: str
    label: str
    setting: str
    seed: int
    task: str
    val: float | None
    test: float
    seconds: float
    role: Role = "student"


@dataclass(frozen=True)
class RunFailed(_Event):
    """A run has failed. error: the exception in a line; part: the part of the loss; place: `my_loss.py:12`; None if unknown."""

    id: str
    label: str
    setting: str
    seed: int
    error: str
    part: str | None = None
    place: str | None = None
    role: Role = "student"


@dataclass(frozen=True)
class RunPaused(_Event):
    """A run was trained for so many of its epochs, as a search within a budget asked. task: by name; val: its headline there."""

    id: str
    label: str
    setting: str
    seed: int
    task: str
    epoch: int
    epochs: int
    val: float | None


@dataclass(frozen=True)
class TeacherChecked(_Event):
    """A teacher is above chance and may teach. ids: the runs that trained it.

    task: by name; val, test: its headline, None where it is not known.
    """

    name: str
    ids: tuple[str, ...]
    task: str
    val: float | None
    test: float | None


@dataclass(frozen=True)
class DoseUnknown(_Event):
    """The gradient of a run's method cannot be measured beside that of cross-entropy."""

    id: str
    label: str
    error: str


@dataclass(frozen=True)
class CacheUse(_Event):
    """How many outputs of the teacher a cohort asked for, how many were cached, and the size of the cache."""

    lookups: int
    hits: int
    bytes: int


@dataclass(frozen=True)
class RunsLocked(_Event):
    """Runs of a job that another process is training."""

    ids: tuple[str, ...]


@dataclass(frozen=True)
class WorkerReady(_Event):
    """A worker process has imported what it needs."""


@dataclass(frozen=True)
class JobEnded(_Event):
    """A worker has come to the end of its job."""


@dataclass(frozen=True)
class JobRefused(_Event):
    """A job cannot be done: a teacher at chance, a folder that cannot be written."""

    problems: tuple[str, ...]


@dataclass(frozen=True)
class TeacherFailed(_Event):
    """The training of a teacher failed, and with it all that waits for it."""

    text: str


@dataclass(frozen=True)
class WorkerDied(_Event):
    """A worker process ended in the middle of a job. how: `was killed by SIGKILL`; log: the file of what it printed."""

    how: str
    log: str


Event = (
    Note
    | DataLine
    | Summary
    | CommandToRun
    | PlanMade
    | TrainingBegun
    | StepsTaken
    | MemberFailed
    | RunDone
    | RunFailed
    | RunPaused
    | TeacherChecked
    | DoseUnknown
    | CacheUse
    | RunsLocked
    | WorkerReady
    | JobEnded
    | JobRefused
    | TeacherFailed
    | WorkerDied
)
Emit = Callable[[Event], None]
KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}


def encode(event: Event) -> str:
    """An event as one line, its kind and its fields as JSON: `Note {"text": "..."}`; raises TypeError for an object that is none."""
    kind = type(event).__name__
    if KINDS.get(kind) is not type(event):
        raise TypeError(f"expected an event ({', '.join(KINDS)}), got {event!r}")
    return f"{kind} {json.dumps(asdict(event))}"


def decode(text: str | bytes) -> Event | None:
    """The event that a line holds; None for any other line, and for an event of an unknown kind or with other fields than its own."""
    line = text.encode() if isinstance(text, str) else text
    word, _, content = line.partition(b" ")
    kind = word.decode(errors="replace")
    if kind not in KINDS:
        return None
    try:
        return _reader(kind).validate_json(content)
    except ValidationError:
        return None


def emit_notes(texts: Iterable[str], emit: Emit) -> None:
    """Emit a note for each text."""
    for text in texts:
        emit(Note(text))


def of_worker(event: Event, number: int) -> Event:
    """The same event, with the number of its worker where the kind has one."""
    return replace(event, worker=number) if isinstance(event, TrainingBegun | StepsTaken) else event


@cache
def _reader(kind: str) -> TypeAdapter[Event]:
    return TypeAdapter(KINDS[kind])
