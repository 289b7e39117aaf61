"""What the events of a bench add up to: runs that ended, the speed, what trains now, and the time left."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable

from kdzoo.runs.events import Event, PlanMade, RunDone, RunFailed, RunPaused, StepsTaken, TrainingBegun
from kdzoo.suite.run.wording import label_words
from kdzoo.tasks.known import task_named
from kdzoo.text import number_of

LEAST_SECONDS_TO_ESTIMATE = 3.0
"""no time left is shown before training has run so long"""
WINDOW_SECONDS = 60.0
"""the speed is that of the last minute: a teacher's steps and its students' differ"""
Clock = Callable[[], float]


class Training:
    """What one worker trains now. together: how many runs began in lockstep; seconds: what those that ended took, all of them."""

    def __init__(self, event: TrainingBegun) -> None:
        self.role, self.name, self.open = event.role, event.name, set(event.ids)
        self.together, self.seconds = len(self.open), 0.0
        self.epochs, self.steps = event.epochs, event.steps
        self.epoch, self.step = 0, event.step
        self.resumed_after = self.step * self.epochs // max(self.steps, 1)
        self.units_a_step = 0.0

    def advance(self, event: StepsTaken) -> None:
        if event.step > self.step and event.ids and self.step:
            self.units_a_step = event.units / len(event.ids) / (event.step - self.step)
        self.epoch, self.step = event.epoch + 1, event.step

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
        count, colon, which = self.words[0].partition(": ")
        return f"{count} ({which})" if colon else count

    @property
    def words(self) -> tuple[str, ...]:
        """What trains, in ever fewer words: `6 runs: 1 at, 4 hinton, 1 student alone`, `6 runs of 3 methods`, `6 runs`."""
        if self.role == "teacher":
            return (f"teacher {self.name}".strip(), "teacher")
        labels = Counter(run_id.rpartition("-")[0] or run_id for run_id in sorted(self.open))
        if len(self.open) == 1:
            return (f"{'pretrain stage of ' if self.role == 'pretrain stage' else ''}{label_words(next(iter(labels)))}",)
        count = number_of(len(self.open), "pretrain stage" if self.role == "pretrain stage" else "run")
        names = ", ".join(f"{number} {label_words(label)}" for label, number in labels.items())
        return (f"{count}: {names}", f"{count} of {number_of(len(labels), 'method')}", count)


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
        self.best: RunDone | None = None
        self.processes, self.teacher_units = 1, 0.0
        self.alike = True
        """whether teachers are trained as their students are, so that their speed tells of theirs"""
        self.teachers_speed: float | None = None
        """units a second and process while teachers alone were trained, for students that have not begun"""
        self.students_began = False
        self.together: tuple[int, float] | None = None
        """of the cohort whose last run has just ended: how many runs, and how many seconds all of them took"""

    def handle(self, event: Event) -> None:
        match event:
            case PlanMade():
                self.name, self.total = event.name, event.total
                self.before, self.ended = {"done": event.done, "failed": event.failed}, {}
                self.units, self.units_done = float(event.units), 0.0
                self.processes, self.teacher_units, self.alike = event.processes, event.teacher_units, event.alike
                self.teachers_speed, self.students_began = None, False
                self.history.clear()
                self.training.clear()
            case TrainingBegun():
                if event.role == "teacher":
                    self.teacher_units -= event.units
                elif not self.students_began:
                    self._begin_students()
                self.training[event.worker] = Training(event)
                self.units -= event.units
                if not self.history:
                    self.history.append((self.clock(), self.units_done))
            case StepsTaken():
                self._step(event)
            case RunDone():
                self._end(event, "done", event.seconds)
                if event.role == "student" and _is_better(event, self.best):
                    self.best = event
            case RunPaused():
                self._end(event, "done", 0.0)
            case RunFailed():
                self._end(event, "failed", 0.0)

    def _step(self, event: StepsTaken) -> None:
        if event.worker in self.training:
            self.training[event.worker].advance(event)
        self.units_done += event.units
        self.history.append((self.clock(), self.units_done))
        while len(self.history) > 20 and self.history[-1][0] - self.history[0][0] > WINDOW_SECONDS:
            self.history.popleft()

    def _begin_students(self) -> None:
        """Teachers were trained by fewer processes than students will be, and at another speed: it is measured anew."""
        speed = self._speed()
        self.teachers_speed = speed / max(len(self.training), 1) if speed is not None and self.alike else None
        self.students_began = True
        self.history.clear()

    def _end(self, event: RunDone | RunFailed | RunPaused, how: str, seconds: float) -> None:
        self.together = None
        for worker, training in list(self.training.items()):
            if event.id in training.open:
                training.seconds += seconds
                self.units -= training.units_left_a_run if how == "failed" else 0.0
                training.open.discard(event.id)
                if not training.open:
                    del self.training[worker]
                    self.together = (training.together, training.seconds) if training.together > 1 else None
        if isinstance(event, RunPaused) or event.role == "student":  # a teacher or a pretrain stage is none of the plan's runs
            self.ended[event.id] = how

    def count(self, how: str) -> int:
        """How many of the plan's runs are `done`, to the end or to where they are paused, or `failed`."""
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
        if not self.history or self.clock() - self.history[0][0] < LEAST_SECONDS_TO_ESTIMATE:
            return None
        (then, before), now = self.history[0], self.clock()
        return (self.units_done - before) / (now - then) if self.units_done > before else None

    def apart(self, run_id: str) -> bool:
        """Whether a run that trains now does so by itself, so that its seconds are its own."""
        return all(training.together == 1 for training in self.training.values() if run_id in training.open)


def _is_better(run: RunDone, best: RunDone | None) -> bool:
    """Whether a run's headline on validation is better than that of the best so far; equal ones are not."""
    if run.val is None or best is None or best.val is None:
        return run.val is not None
    return task_named(run.task).headline.sign * (run.val - best.val) > 0
