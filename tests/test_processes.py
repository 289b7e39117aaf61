"""What the tests take for the end of a process."""

import subprocess
import sys
import time
from pathlib import Path

from processes import left_of, running_in, started

FIRST_THREAD_ENDS = """
import ctypes, threading, time
threading.Thread(target=lambda: time.sleep(2)).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_first_thread_has_ended_runs_until_the_last_one_has():
    """Linux calls it a zombie at once, but its files and locks are still held: so it is for a moment after SIGKILL."""
    process = started([sys.executable, "-c", FIRST_THREAD_ENDS], popen=subprocess.Popen)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert running_in(process.pid) == [process.pid]
    process.wait(timeout=30)
    assert left_of(lambda: running_in(process.pid)) == []
