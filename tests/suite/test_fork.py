"""A call in a copy of this process: however it ends, and where no copy can be made, this process goes on and leaks nothing."""

import multiprocessing
import os
import signal
import sys
import time

import pytest

from kdzoo.suite.run import fork
from kdzoo.suite.run.fork import Fate, fate_in_copy, how_it_ended

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="copies are made on Linux alone")


def test_a_copy_that_ends_is_told_in_words_of_its_exit_code():
    assert fate_in_copy(lambda: None) is Fate.returned
    assert fate_in_copy(lambda: os._exit(3)) == "ended with status 3"
    assert fate_in_copy(lambda: os.kill(os.getpid(), signal.SIGRTMIN + 2)) == f"was killed by signal {signal.SIGRTMIN + 2}"
    assert how_it_ended(-signal.SIGSEGV) == "was killed by SIGSEGV"


def test_a_copy_that_does_not_answer_is_ended(monkeypatch):
    monkeypatch.setattr(fork, "PATIENCE_SECONDS", 0.2)
    assert fate_in_copy(lambda: time.sleep(60)) is Fate.stalled
    assert not multiprocessing.active_children()


def test_where_no_process_can_be_started_the_fate_is_unknown_and_no_pipe_stays_open(monkeypatch):
    def refuse(process: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(multiprocessing.context.ForkProcess, "start", refuse)
    assert fate_in_copy(lambda: None) is Fate.unknown
    assert os.listdir("/proc/self/fd") == before


def test_a_daemon_process_which_may_have_no_children_knows_no_fate():
    context = multiprocessing.get_context("fork")
    answer, end = context.Pipe(duplex=False)
    daemon = context.Process(target=lambda: end.send(str(fate_in_copy(lambda: None))), daemon=True)
    daemon.start()
    assert answer.poll(30)
    assert answer.recv() == "unknown"
    daemon.join()
