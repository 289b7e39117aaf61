"""Clocks that jump, folders without locks, processes that are stopped for a while, methods that run out of memory."""

import ctypes
import errno
import json
import os
import platform
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from moments import assert_undisturbed, bench, ended, runs
from processes import members_of_group, running_in

from kdzoo.files import PACKAGE
from kdzoo.runs.store import Store


@pytest.fixture
def folder(calm: Path, tmp_path: Path) -> Path:
    """An empty folder with a teacher in its cache."""
    shutil.copytree(calm / "cache", tmp_path / "cache")
    return tmp_path


@pytest.mark.slow
def test_a_clock_that_jumps_changes_no_number(folder: Path, calm: Path) -> None:
    """Of the calendar: 30 hours ahead from the start, from the second epoch on 30 hours behind, then right.

    In one process: under libfaketime, one that waits for another raises what it does not under any clock.
    """
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("no libfaketime")
    (folder / "clock").write_text("+30h")
    preloaded = {"LD_PRELOAD": str(found[0]), "FAKETIME_TIMESTAMP_FILE": str(folder / "clock"), "FAKETIME_NO_CACHE": "1"}
    environment = {**preloaded, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "KDZOO_LAUNCHER": "here"}
    output = ended(bench(folder, moment="worker step 2 4 clock", environment=environment, popen=subprocess.Popen))
    assert (folder / "clock").read_text() == "-30h", "it never jumped"
    assert "no progress" not in output
    assert_undisturbed(folder, calm)
    for run in (folder / "r/b/runs").iterdir():
        times = json.loads((run / "result.json").read_text())
        assert times["finished"] < times["started"], "it did not jump for the worker"
        assert 0 <= times["seconds"] < 120
    assert "3 done" in ended(bench(folder)), "nothing is trained again"


@pytest.mark.slow
def test_a_folder_without_locks_is_told_before_any_work(folder: Path) -> None:
    if platform.machine() != "x86_64" or ctypes.CDLL(None).prctl(21, 0, 0, 0, 0) < 0:  # PR_GET_SECCOMP
        pytest.skip("calls of the system are refused by number, of this processor")
    process = bench(folder, environment={"KDZOO_TEST_REFUSE": f"73:{errno.ENOLCK}"})  # flock
    output = ended(process, 2)
    assert "cannot lock r/b/.bench.lock: No locks available; put the results and KDZOO_CACHE on a file system that has locks" in output
    assert "Traceback" not in output
    assert not list(folder.glob("r/b/runs/*/metrics.jsonl"))
    assert members_of_group(process.pid) == []


@pytest.mark.slow
@pytest.mark.parametrize("who", ["the worker", "all processes"])
def test_what_is_stopped_for_a_while_goes_on(folder: Path, calm: Path, who: str) -> None:
    process = bench(folder, moment="worker step 2 4 sleep")
    _wait_for(folder / "reached", process)
    stopped = [pid for pid in running_in(process.pid) if who == "all processes" or pid != process.pid]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    ended(process)
    assert members_of_group(process.pid) == []
    assert_undisturbed(folder, calm)


@pytest.mark.slow
def test_a_bench_that_is_stopped_for_a_minute_takes_no_silence_for_a_hang(folder: Path, calm: Path) -> None:
    """All of its processes, for longer than a run may take: the time in which its driver was stopped too says nothing of a worker."""
    process = bench(folder, "--run-timeout", "20", moment="worker step 2 4 sleep")
    _wait_for(folder / "reached", process)
    stopped = running_in(process.pid)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(60)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    assert "no progress" not in ended(process)
    assert members_of_group(process.pid) == []
    assert_undisturbed(folder, calm)


@pytest.mark.slow
def test_a_worker_that_stays_stopped_is_replaced_after_the_time_that_a_run_may_take(folder: Path, calm: Path) -> None:
    process = bench(folder, "--run-timeout", "4", moment="worker step 2 4 sleep")
    _wait_for(folder / "reached", process)
    for pid in running_in(process.pid):
        if pid != process.pid:
            os.kill(pid, signal.SIGSTOP)
    assert "made no progress for 4 seconds (--run-timeout) and was killed" in ended(process)
    assert members_of_group(process.pid) == []
    assert_undisturbed(folder, calm)


def _wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not file.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


FAULTS = {
    "memory": "OutOfMemoryError: CUDA out of memory",  # torch's own, as CUDA's allocator raises it
    "exit": "method 'odd' ends the process, with os._exit(0)",
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_method_that_takes_all_memory_or_leaves_fails_alone_and_is_trained_again(folder: Path, calm: Path, fault: str) -> None:
    """In one step; what C has printed to standard output before is in the log."""
    process = bench(folder, moment=f"worker step 2 4 {fault}")
    assert FAULTS[fault] in ended(process, 1)
    states = {run_id.rpartition("-")[0]: Store(folder / "r/b").run(run_id).state() for run_id in Store(folder / "r/b").ids()}
    assert states == {"none": "done", "hinton": "done", "odd": "failed"}
    assert ("printed by C" in (folder / "cache/logs/b/worker-0.log").read_text()) == (fault == "exit")
    assert members_of_group(process.pid) == []
    ended(bench(folder, "--retry-failed"))
    assert_undisturbed(folder, calm)


@pytest.mark.slow
def test_three_drivers_on_one_folder_train_every_run_once(folder: Path, calm: Path) -> None:
    drivers = [bench(folder) for _ in range(3)]
    for driver in drivers:
        ended(driver)
    assert_undisturbed(folder, calm)
    finished = (folder / "trained.txt").read_text().split()
    assert finished == ["odd"], "one of the three trained it"
    assert [pid for driver in drivers for pid in members_of_group(driver.pid)] == []
    assert len(runs(folder)) == 4


@pytest.mark.slow
def test_kdzoo_itself_that_is_updated_meanwhile_is_told_in_a_line(folder: Path, tmp_path: Path) -> None:
    """A copy of it, of which a file becomes another before a new worker is started."""
    shutil.copytree(PACKAGE, tmp_path / "site/kdzoo")  # with its bytecode, which each process would compile otherwise
    environment = {"PYTHONPATH": str(tmp_path / "site")}
    output = ended(bench(folder, moment="worker step 2 4 update-kill", environment=environment, popen=subprocess.Popen))
    assert output.count("kdzoo's own files have changed since this bench began") == 1
    assert "run the same command again" in output
