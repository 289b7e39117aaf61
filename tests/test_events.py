"""Events: every kind crosses the pipe unchanged, and every kind has somebody who reads it."""

import ast
from pathlib import Path

import pytest

from kdzoo.runs.events import (
    KINDS,
    CacheUse,
    CommandToRun,
    DataLine,
    DoseUnknown,
    Event,
    JobEnded,
    JobRefused,
    MemberFailed,
    Note,
    PlanMade,
    RunDone,
    RunFailed,
    RunPaused,
    RunsLocked,
    StepsTaken,
    Summary,
    TeacherChecked,
    TeacherFailed,
    TrainingBegun,
    WorkerDied,
    WorkerReady,
    decode,
    encode,
)

PACKAGE = Path(__file__).resolve().parent.parent / "kdzoo"

EVENTS: list[Event] = [
    Note("two\nlines, \u00e9"),
    DataLine("digits"),
    Summary("done"),
    CommandToRun("kdzoo work results/digits"),
    PlanMade("digits", 10.0, total=3, done=1, failed=0, teacher_units=2.5, processes=2, alike=False),
    TrainingBegun("pretrain stage", ("at-1", "at-2"), epochs=2, steps=10, step=5, units=1.5, name="", worker=1),
    StepsTaken(("at-1",), epoch=0, step=3, steps=10, units=1 / 3),
    MemberFailed("at-1"),
    RunDone("at-1", "at", "T=4", 0, "classification", None, 0.1 + 0.2, 1.5, "teacher"),
    RunPaused("at-1", "at", "alpha=0.5", 0, "classification", 3, 9, 0.4),
    RunFailed("at-1", "at", "", 0, "ValueError: no", "at", "at.py:3", "student"),
    TeacherChecked("resnet20", ("none-1",), "classification", 0.9, 0.8),
    DoseUnknown("at-1", "at", "no gradient"),
    CacheUse(10, 4, 2**40),
    RunsLocked(("at-1",)),
    WorkerReady(),
    JobEnded(),
    JobRefused(("teacher: at chance", "results: not writable")),
    TeacherFailed("out of memory"),
    WorkerDied("was killed by SIGKILL", "worker-0.log"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_is_the_same_on_the_other_side_of_a_pipe(event):
    line = encode(event)
    assert "\n" not in line
    assert decode(line) == event
    assert decode(line.encode()) == event


def test_what_is_no_event_is_not_sent():
    with pytest.raises(TypeError, match="expected an event"):
        encode({"event": "Note", "text": "a dict"})


def _kinds_that_code_tells_apart(tree: ast.AST) -> set[str]:
    """Names in the patterns of `match` and in the second argument of `isinstance`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.MatchClass):
            found |= {name.id for name in ast.walk(node.cls) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            found |= {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
    return found


def test_every_kind_of_event_is_sent_and_read_somewhere():
    trees = [ast.parse(file.read_text()) for file in PACKAGE.rglob("*.py") if file.name != "events.py"]
    read = set().union(*map(_kinds_that_code_tells_apart, trees))
    calls = (node.func for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call))
    sent = {function.id for function in calls if isinstance(function, ast.Name)} | {"Note"}
    assert set(KINDS) == {type(event).__name__ for event in EVENTS}
    assert set(KINDS) - read == set()
    assert set(KINDS) - sent == set()
