"""What a person sees of a bench: on a terminal, in a pipe, on a narrow screen, and after it was interrupted."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time
from collections.abc import Iterable
from fcntl import ioctl
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from kdzoo.runs.events import Event, Note, PlanMade, Role, RunDone, RunFailed, StepsTaken, TeacherChecked, TrainingBegun
from kdzoo.suite.run.display import open_display
from kdzoo.suite.run.progress_bar import LiveDisplay
from kdzoo.suite.run.progress_lines import PlainDisplay
from kdzoo.suite.run.wording import clock_words


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def plan(**changes: Any) -> PlanMade:
    return PlanMade(**{"name": "digits", "units": 1000, "total": 24, "done": 3, "failed": 0, **changes})


def begin(*ids: str, worker: int = 0, role: Role = "student", **changes: Any) -> TrainingBegun:
    return TrainingBegun(role, ids, epochs=30, steps=690, worker=worker, **changes)


def step(*ids: str, epoch: int, step: int, units: float, worker: int = 0) -> StepsTaken:
    return StepsTaken(ids, epoch, step, steps=690, units=units, worker=worker)


def done(run_id: str, val: float | None, test: float = 0.944, setting: str = "T=4 alpha=0.9", role: Role = "student") -> RunDone:
    return RunDone(run_id, run_id.rpartition("-")[0], setting, 0, "classification", val, test, seconds=3.2, role=role)


def failed(run_id: str, error: str = "RuntimeError: loss became NaN at step 12", **where: str) -> RunFailed:
    return RunFailed(run_id, run_id.rpartition("-")[0], setting="", seed=2, error=error, **where)


def plain(events: Iterable[Event | float]) -> list[str]:
    """The lines of a pipe; a number among the events lets so many seconds pass."""
    clock, file = Time(), io.StringIO()
    display = PlainDisplay(Console(file=file, width=200), clock)
    for event in events:
        if not isinstance(event, float):
            display.handle(event)
        else:
            clock.now += event
    return file.getvalue().splitlines()


def seen(events: Iterable[Event | float], width: int = 100) -> tuple[list[str], list[str]]:
    """What stands above the live area, and the area itself as it is in the end."""
    clock = Time()
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    display = LiveDisplay(console, clock)
    for event in events:
        if not isinstance(event, float):
            display.handle(event)
        else:
            clock.now += event
    above = console.export_text().splitlines()
    console.print(display)
    return above, [line.rstrip() for line in console.export_text().splitlines()]


# --- no terminal


def test_a_pipe_gets_a_line_for_the_start_and_for_every_run_that_ends():
    assert plain([plan(), begin("hinton-1", "crd-2"), done("hinton-1", 0.956), failed("crd-2"), done("none-3", 0.92, setting="")]) == [
        "digits: 24 runs, 3 done",
        "[ 4/24] hinton, T=4 alpha=0.9, seed 0: val top-1 95.6 %  test top-1 94.4 %  best on validation so far",
        "[ 5/24] crd, seed 2: failed: RuntimeError: loss became NaN at step 12",
        "2 runs trained together in 0:03",
        "[ 6/24] student alone, seed 0: val top-1 92.0 %  test top-1 94.4 %  3.2 s",
    ]


def test_failures_before_the_start_are_in_the_first_line():
    assert plain([plan(failed=2, total=1)]) == ["digits: 1 run, 3 done, 2 failed"]


def test_the_best_is_chosen_on_validation_and_never_on_test():
    lines = plain([plan(), done("hinton-1", 0.90, test=0.80), done("at-2", 0.89, test=0.99), done("rkd-3", None, test=1.0)])
    assert [line.endswith("  best on validation so far") for line in lines[1:]] == [True, False, False]


def test_without_validation_only_the_test_score_is_shown_and_nothing_is_called_best():
    (_, line) = plain([plan(), done("rkd-3", None)])
    assert line == "[ 4/24] rkd, T=4 alpha=0.9, seed 0: test top-1 94.4 %  3.2 s"


@pytest.mark.parametrize("text", ["two\nlines", "a\r\n\x1b[31mred\x1b[0m\a", "tab\tand\vmore", "[bold]markup[/bold] [/]", "x" * 500])
def test_an_event_is_never_more_than_one_line_and_has_no_control_characters(text):
    lines = plain([plan(), failed("at-1", error=text), Note(text)])
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    visible = "".join(c for c in text if c.isprintable() and c != " ")
    assert visible in lines[2].replace(" ", "")


def test_a_long_training_speaks_every_ten_seconds_at_most():
    steps = [item for n in range(1, 201) for item in (0.5, step("at-1", epoch=n // 23, step=n, units=1))]
    lines = plain([plan(units=690, total=1, done=0), begin("at-1"), *steps])[1:]
    assert len(lines) == 10
    assert lines[-1] == "training at: epoch 9 of 30; 29 % of the work, 4:05 left"


def test_the_same_note_is_shown_once():
    assert plain([Note("wandb: offline"), Note("wandb: offline"), Note("other")]) == ["wandb: offline", "other"]


def test_a_teacher_is_not_counted_as_a_run_of_the_bench():
    teacher = TeacherChecked("resnet20", ("none-0",), "classification", val=0.981, test=0.972)
    lines = plain([plan(), done("none-0", 0.981, 0.972, role="teacher"), teacher, done("at-1", 0.9)])
    assert lines[1:3] == [
        "teacher trained: val top-1 98.1 %  test top-1 97.2 %  3.2 s",
        "teacher resnet20: val top-1 98.1 %  test top-1 97.2 %",
    ]
    assert lines[3].startswith("[ 4/24] at")
    assert lines[3].endswith("  best on validation so far")


# --- a terminal


def running() -> list[Event | float]:
    return [
        plan(),
        begin("none-0123456789ab", role="teacher"),
        begin("hinton-0123456789ab", "hinton-0123456789ac", "at+hinton-0123456789ac", worker=1),
        5.0,
        step("none-0123456789ab", epoch=4, step=100, units=50),
        step("hinton-0123456789ab", "hinton-0123456789ac", "at+hinton-0123456789ac", epoch=2, step=60, units=150, worker=1),
        done("hinton-00000000000a", 0.956),
        done("hinton-00000000000b", 0.941, test=0.999),
    ]


def test_a_terminal_has_a_bar_for_the_bench_one_for_each_worker_and_the_best_so_far():
    above, area = seen(running())
    assert above == []
    bench, teacher, students, best = area
    assert bench.startswith("digits ")
    assert bench.endswith(" 5/24 runs  20 %   0:05 elapsed, 0:20 left")
    assert teacher.startswith("teacher ")
    assert teacher.endswith(" epoch 5 of 30")
    assert students.startswith("3 runs: 1 at+hinton, 2 hinton ")
    assert students.endswith(" epoch 3 of 30")
    assert best == "best single run so far: hinton, T=4 alpha=0.9: val top-1 95.6 %"
    lengths = [line.count("━") + line.count("╸") + line.count("╺") for line in area]
    assert lengths[0] == lengths[1] == lengths[2] > 10
    assert lengths[3] == 0


def test_failures_and_notes_stand_above_and_failures_are_counted():
    above, area = seen([*running(), failed("crd-1"), Note("a worker was killed\nby SIGKILL")])
    assert above == ["crd, seed 2: failed: RuntimeError: loss became NaN at step 12", "a worker was killed by SIGKILL"]
    assert area[-1] == "1 failed   best single run so far: hinton, T=4 alpha=0.9: val top-1 95.6 %"


def test_a_worker_that_has_ended_its_runs_has_no_bar():
    ids = ("hinton-0123456789ab", "hinton-0123456789ac", "at+hinton-0123456789ac")
    _, area = seen([*running(), done(ids[0], 0.9)])
    assert area[2].startswith("2 runs: 1 at+hinton, 1 hinton ")
    _, area = seen([*running(), done(ids[0], 0.9), failed(ids[1]), done(ids[2], 0.9), done("none-0123456789ab", 0.9, role="teacher")])
    assert len(area) == 2
    assert area[0].startswith("digits")
    assert " 7/24 runs" in area[0]


def test_the_live_line_says_in_words_what_trains_as_far_as_it_fits():
    ids = ["at-1", *(f"hinton-{n}" for n in range(4)), "none-1"]
    events = [plan(), begin(*ids), step(*ids, epoch=2, step=60, units=150)]
    lines = {width: seen(events, width=width)[1][1] for width in (100, 80, 40)}
    assert lines[100].startswith("6 runs: 1 at, 4 hinton, 1 student alone ")
    assert lines[80].startswith("6 runs of 3 methods ")
    assert lines[40].startswith("6 runs ")
    named = begin("none-1", role="teacher", name="resnet56")
    assert seen([plan(), named])[1][1].startswith("teacher resnet56 ")
    assert seen([plan(), begin("none-1")])[1][1].startswith("student alone ")
    assert seen([plan(), begin("fitnet-1", role="pretrain stage")])[1][1].startswith("pretrain stage of fitnet ")


def test_a_resumed_run_says_from_which_epoch():
    """23 steps an epoch: 345 of 690 steps are 15 of 30 epochs."""
    ids = ["at-1", "hinton-2"]
    assert plain([plan(), begin(*ids, step=345, units=600)])[1] == "training 2 runs (1 at, 1 hinton): resuming at epoch 16 of 30"
    above, area = seen([plan(), begin(*ids, step=345, units=600)])
    assert above == ["training 2 runs (1 at, 1 hinton): resuming at epoch 16 of 30"]
    assert area[1].endswith(" resuming at epoch 16 of 30")


def test_runs_of_a_cohort_share_their_time_and_do_not_each_tell_it():
    """A run's own seconds are its share of the cohort's: three that took 3.2 s each trained together for 9.6 s."""
    ids = ["at-1", "at-2", "at-3"]
    lines = plain([plan(), begin(*ids), *(done(run_id, 0.9) for run_id in ids), begin("rkd-1"), done("rkd-1", 0.8)])
    assert [" 3.2 s" in line for line in lines] == [False, False, False, False, False, True]
    assert lines[4] == "3 runs trained together in 0:10"


@pytest.mark.parametrize("width", [120, 80, 79, 60, 40, 24])
def test_no_width_breaks_the_lines(width):
    above, area = seen([*running(), failed("crd-1")], width=width)
    assert all(cell_len(line) <= width for line in [*above, *area])
    assert len(area) == 4 + (width < 80)
    assert width < 40 or " 5/24 runs" in area[0]
    assert "0:05 elapsed, 0:20 left" in "\n".join(area)


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    display = LiveDisplay(console, Time())
    for event in running():
        if not isinstance(event, float):
            display.handle(event)
    console.print(display)
    codes = {part.partition("m")[0] for part in file.getvalue().split("\x1b[")[1:]}
    assert codes <= {"0", "1"}  # bold is no colour


# --- the time left


def left(events: Iterable[Event | float]) -> str:
    _, area = seen(events)
    return area[0].rpartition("elapsed, ")[2]


def test_the_time_left_is_unknown_until_training_has_run_for_a_while():
    start = [plan(), begin("at-1")]
    assert left([]) == "--:-- left"
    assert left(start) == "--:-- left"
    assert left([*start, 60.0]) == "--:-- left"
    assert left([*start, 0.1, step("at-1", epoch=0, step=1, units=1)]) == "--:-- left"


def test_the_time_left_does_not_count_what_checkpoints_hold():
    """Of 1000 units a resumed run has 600 behind it, so that 300 are left after another 100 in 10 s; its bar starts there too."""
    events = [plan(), begin("at-1", step=345, units=600), 10.0, step("at-1", epoch=15, step=360, units=100)]
    assert left(events) == "0:30 left"
    area = seen(events[:2])[1]
    assert "━━━" in area[1]


def test_the_time_left_is_the_work_left_at_the_measured_speed():
    assert left([plan(), begin("at-1"), 10.0, step("at-1", epoch=0, step=10, units=100)]) == "1:30 left"


def test_waiting_before_the_first_run_is_no_training_time():
    assert left([plan(), 500.0, begin("at-1"), 10.0, step("at-1", epoch=0, step=10, units=100)]) == "1:30 left"


def test_while_a_teacher_trains_its_students_are_expected_in_all_processes():
    """10 units a second: 100 of the teacher's 200 are left (10 s), and its students' 800 take 40 s in two processes."""
    start = plan(units=1000, teacher_units=200, processes=2, done=0)
    teacher = [start, begin("none-1", role="teacher"), 10.0, step("none-1", epoch=9, step=230, units=100)]
    assert left(teacher) == "0:50 left"
    over = [*teacher, 10.0, step("none-1", epoch=19, step=460, units=100), done("none-1", 0.98, role="teacher")]
    assert left([*over, begin("at-1"), begin("at-2", worker=1)]) == "0:40 left"


def test_a_teacher_that_is_trained_otherwise_tells_nothing_of_its_students():
    """Its 200 units took 20 s; the students' speed is known once they have trained for a while: 800 units at 2 a second."""
    start = plan(units=1000, teacher_units=200, alike=False, done=0)
    teacher = [start, begin("none-1", role="teacher"), 10.0, step("none-1", epoch=9, step=230, units=100)]
    assert left(teacher) == "--:-- left"
    students = [10.0, step("none-1", epoch=19, step=460, units=100), done("none-1", 0.98, role="teacher"), begin("at-1")]
    assert left([*teacher, *students]) == "--:-- left"
    assert left([*teacher, *students, 5.0, step("at-1", epoch=0, step=5, units=10)]) == "6:35 left"


def test_the_speed_of_students_is_their_own():
    """The teacher's 200 units took 20 s; its students do 40 units a second."""
    start = plan(units=1000, teacher_units=200, processes=2, done=0)
    teacher = [start, begin("none-1", role="teacher"), 20.0, step("none-1", epoch=19, step=460, units=200)]
    students = [done("none-1", 0.98, role="teacher"), begin("at-1"), 5.0, step("at-1", epoch=1, step=46, units=200)]
    assert left([*teacher, *students]) == "0:15 left"


def test_the_speed_is_the_recent_one():
    """100 s at 1 unit a second, then 100 s at 4: 500 units are left, which takes 125 s."""
    slow = [item for n in range(100) for item in (1.0, step("at-1", epoch=0, step=n + 1, units=1))]
    fast = [item for n in range(100) for item in (1.0, step("at-1", epoch=1, step=n + 101, units=4))]
    assert left([plan(), begin("at-1"), *slow, *fast]) == "2:05 left"


def test_the_work_of_a_failed_run_is_no_longer_waited_for():
    """Two runs of 690 steps, a unit a step; one fails at step 69, and its 621 steps fall away."""
    ids = ("at-1", "crd-2")
    events = [
        plan(units=1380, total=2, done=0),
        begin(*ids),
        5.0,
        step(*ids, epoch=1, step=46, units=92),
        2.5,
        step(*ids, epoch=2, step=69, units=46),
    ]
    assert left(events) == f"{clock_words(1242 * 7.5 / 138)} left"
    assert left([*events, failed("crd-2")]) == f"{clock_words(621 * 7.5 / 138)} left"


def test_when_every_run_has_ended_the_bench_is_at_a_hundred_per_cent():
    _, area = seen([plan(total=5), begin("at-1", "at-2"), 9.0, step("at-1", epoch=0, step=1, units=5), done("at-1", 0.9), failed("at-2")])
    assert " 4/5 runs 100 %" in area[0]
    assert area[0].endswith("0:00 left")


def test_a_second_plan_starts_the_count_anew():
    _, area = seen([*running(), plan(total=6, done=0, units=600)])
    assert " 0/6 runs   0 %" in area[0]


@pytest.mark.parametrize(("seconds", "words"), [(0, "0:00"), (65.4, "1:05"), (3599.7, "1:00:00"), (7384, "2:03:04"), (None, "--:--")])
def test_times_read_like_a_clock(seconds, words):
    assert clock_words(seconds) == words


# --- which display it is


def test_output_that_is_no_terminal_gets_lines_even_where_colours_are_forced(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = io.StringIO()
    with open_display(Console(file=file, width=100)) as display:
        display.handle(plan())
        display.handle(done("at-1", 0.9))
    assert file.getvalue().count("\n") == 2
    assert "\x1b" not in file.getvalue()


PROGRAM = """
    import sys, time
    from rich.console import Console
    from kdzoo.runs.events import Note, PlanMade, TrainingBegun
    from kdzoo.suite.run.display import open_display
    with open_display(Console()) as display:
        display.handle(PlanMade("digits", units=100, total=2, done=0, failed=0))
        display.handle(TrainingBegun("student", ("at-1",), epochs=3, steps=9))
        display.handle(Note("a note"))
        print("something else")
        ENDING
    """


def keep_output_at_an_interrupt(terminal: int) -> None:
    """Set NOFLSH: at ^C the driver sends the signal, then drops what nobody has read, which may be the program's last words."""
    settings = termios.tcgetattr(terminal)
    settings[3] |= termios.NOFLSH
    termios.tcsetattr(terminal, termios.TCSANOW, settings)


def begin_on(terminal: int) -> None:
    """Make it the terminal of this process, which takes ^C also where the tests run in the background and ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.login_tty(terminal)


def on_a_terminal(ending: str, *, interrupt: bool = False, **environ: str) -> tuple[int, str, bool]:
    """Status and output of the program on a pseudo-terminal, and whether its settings are as they were."""
    parent, child = pty.openpty()
    ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    keep_output_at_an_interrupt(child)
    before = termios.tcgetattr(child)
    program = textwrap.dedent(PROGRAM).replace("ENDING", ending)
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        preexec_fn=lambda: begin_on(child),
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", **environ},
    )
    output, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        has_ended = process.poll() is not None  # asked first: what it wrote before its end is then there to be read
        if select.select([parent], [], [], 0.1)[0]:
            output += os.read(parent, 4096)
        elif has_ended:
            break
        if interrupt and b"ready" in output:
            os.write(parent, b"\x03")
            interrupt = False
    process.kill()
    status, after = process.wait(), termios.tcgetattr(child)
    os.close(parent)
    os.close(child)
    return status, output.decode(), after == before


HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


@pytest.mark.parametrize(
    ("ending", "interrupt", "says"),
    [
        ("pass", False, "something else"),
        ("raise RuntimeError('gone wrong')", False, "RuntimeError: gone wrong"),
        ("print('ready', flush=True); time.sleep(60)", True, "KeyboardInterrupt"),
    ],
)
def test_however_it_ends_the_cursor_is_back_and_the_terminal_as_it_was(ending, interrupt, says):
    status, output, unchanged = on_a_terminal(ending, interrupt=interrupt)
    assert (status == 0) == (ending == "pass")
    assert HIDE in output
    assert output.rindex(SHOW) > output.rindex(HIDE)
    assert unchanged
    assert says in output
    assert "a note" in output
    assert "0/2 runs" in output[output.rindex(HIDE) :]  # how far it came stays on the screen


def test_a_terminal_that_can_do_nothing_gets_lines():
    _, output, _ = on_a_terminal("pass", TERM="dumb")
    assert output.replace("\r\n", "\n") == "digits: 2 runs, 0 done\na note\nsomething else\n"
