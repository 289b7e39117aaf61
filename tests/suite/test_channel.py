"""The channel between worker and driver: events arrive whatever else is written, and a death is seen whoever holds the pipe."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from kdzoo.runs.events import Event, Note
from kdzoo.suite.run.channel import CHANNEL_LOST, FORKED, Receiver

HEAD = """
import os, sys, time
from kdzoo.runs.events import Note
from kdzoo.suite.run.channel import Sender
pipe = int(sys.argv[1])
sender = Sender(pipe)
"""


def receive(tmp_path: Path, code: str) -> tuple[Receiver, list[Event], int, float]:
    """What a process whose code this is sends: the receiver, the events, the exit status, the seconds until all was over."""
    read, write = os.pipe()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-c", HEAD + code, str(write)], pass_fds=(write,), stdout=log, stderr=log)
    os.close(write)
    receiver = Receiver(read, process)
    began = time.monotonic()
    events = list(receiver.events())
    status = process.wait(20)
    os.close(read)
    return receiver, events, status, time.monotonic() - began


def test_events_arrive_in_order_and_whole(tmp_path: Path) -> None:
    receiver, events, status, _ = receive(tmp_path, "for n in range(200): sender.send(Note(f'{n} ' + 'x' * 5000))")
    assert status == 0
    assert events == [Note(f"{n} " + "x" * 5000) for n in range(200)]
    assert receiver.strays == 0


@pytest.mark.parametrize(
    ("written", "strays"),
    [
        ("b'hello\\n'", 1),
        ("b'half a line without an end'", 1),
        ("b'[1, 2]\\n{}\\nnull\\n'", 3),
        ("b'Note 3\\n'", 1),
        ("b'Memo {}\\n'", 1),
        ("b'Note {}\\n'", 1),
        ("b'Note {\"text\": 3}\\n'", 1),
        ('b\'Note {"text": "x", "more": 3}\\n\'', 1),
        ("b'\\xff\\xfe\\x00\\n'", 1),
        ("b'[' * 200000 + b'\\n'", 1),
        ("b'Note ' + b'[' * 200000 + b'\\n'", 1),
        ("b'\\n\\n'", 0),
    ],
)
def test_what_is_no_event_is_counted_and_spoils_none(tmp_path: Path, written: str, strays: int) -> None:
    code = f"sender.send(Note('a')); os.write(pipe, {written}); sender.send(Note('b')); os.write(pipe, {written})"
    receiver, events, _, _ = receive(tmp_path, code)
    assert events == [Note("a"), Note("b")]
    assert receiver.strays == 2 * strays


def test_the_death_of_a_worker_is_seen_while_another_process_holds_its_pipe(tmp_path: Path) -> None:
    code = """
import subprocess
os.set_inheritable(pipe, True)
holder = subprocess.Popen(["sleep", "60"], close_fds=False)
print(holder.pid, flush=True)
sender.send(Note("a"))
os.kill(os.getpid(), 9)
"""
    _, events, status, seconds = receive(tmp_path, code)
    holder = int((tmp_path / "log").read_text())
    os.kill(holder, 9)
    assert events == [Note("a")]
    assert status == -9
    assert seconds < 15


def test_a_process_that_goes_on_writing_does_not_hide_the_death(tmp_path: Path) -> None:
    code = """
import subprocess
os.set_inheritable(pipe, True)
noise = f"import os\\nwhile True: os.write({pipe}, b'noise\\\\n'); os.write(1, b'.')"
writer = subprocess.Popen([sys.executable, "-c", noise], close_fds=False, stdout=subprocess.PIPE)
writer.stdout.read(1)  # it has begun to write
print(writer.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    receiver, events, status, seconds = receive(tmp_path, code)
    # its pipe breaks when the receiver's end is closed, so that it may have ended by itself
    with suppress(ProcessLookupError):
        os.kill(int((tmp_path / "log").read_text().splitlines()[0]), 9)
    assert events == []
    assert receiver.strays > 0
    assert status == -9
    assert seconds < 15


def test_a_forked_process_neither_holds_the_pipe_nor_sends(tmp_path: Path) -> None:
    code = """
if os.fork() == 0:
    try: sender.send(Note("of the fork"))
    finally: os._exit(1)
_, status = os.wait()
sender.send(Note(f"the fork ended with {os.waitstatus_to_exitcode(status)}"))
if os.fork() == 0:
    time.sleep(60); os._exit(0)
"""
    _, events, _, seconds = receive(tmp_path, code)
    assert events == [Note(f"the fork ended with {FORKED}")]
    assert seconds < 15


@pytest.mark.parametrize("loss", ["os.close(pipe)", "os.dup2(os.open(os.devnull, os.O_WRONLY), pipe)"])
def test_a_worker_whose_pipe_was_closed_ends(tmp_path: Path, loss: str) -> None:
    _, events, status, _ = receive(tmp_path, f"sender.send(Note('a')); {loss}; sender.send(Note('b')); print('lives on')")
    assert events == [Note("a")]
    assert status == CHANNEL_LOST
    assert "lives on" not in (tmp_path / "log").read_text()
    assert "channel to the driver was closed" in (tmp_path / "log").read_text()
