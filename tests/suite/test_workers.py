"""Whatever a worker's process does to itself, a bench ends within seconds of it, says what happened and trains the rest."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from processes import members_of_group, running_in, started
from warm_python import OtherHashPopen, WarmPopen

HEAD = """
import ctypes, os, sys, threading, time
import kdzoo, torch.nn.functional as F

@kdzoo.register("odd")
def odd(student, teacher, batch):
    "The squared difference of logits."
    training, step = batch.clock.steps > 10, batch.clock.step
"""
TAIL = """
    return F.mse_loss(student.logits, teacher.logits)
"""
EPOCHS = 3


def bench(
    folder: Path,
    body: str = "",
    *more: str,
    more_code: str = "",
    environment: dict[str, str] | None = None,
    popen: type[subprocess.Popen[Any]] = WarmPopen,
) -> subprocess.Popen[str]:
    """A small bench on the digits with a method `odd` that does `body` in its loss."""
    folder.mkdir(exist_ok=True)
    (folder / "odd.py").write_text(HEAD + body + TAIL + more_code)
    words = ["--methods", "hinton,odd", "--plugin", "odd.py", "--quick", "--epochs", str(EPOCHS)]
    words += ["--temperatures", "4", "--alphas", "0.5", "--results", "r", "--name", "b"]
    command = [sys.executable, "-m", "kdzoo", "bench", *words, "-j", "1", "--threads", "1", "--checkpoint-seconds", "0.2", *more]
    places = {"KDZOO_CACHE": str(folder / "cache"), "WANDB_MODE": "disabled", "COLUMNS": "200"}
    return started(command, folder=folder, environment={**os.environ, **places, **(environment or {})}, popen=popen)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose bench nothing disturbed, with the teacher in its cache."""
    folder = tmp_path_factory.mktemp("warm")
    process = bench(folder, popen=OtherHashPopen)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    return folder


@pytest.fixture
def folder(warm: Path, tmp_path: Path) -> Path:
    shutil.copytree(warm / "cache", tmp_path / "cache")
    return tmp_path


def outcome(folder: Path) -> dict[str, str]:
    """By method: done, failed or open."""
    return {
        path.name.rpartition("-")[0]: "done" if (path / "result.json").exists() else "failed" if (path / "error.txt").exists() else "open"
        for path in (folder / "r/b/runs").iterdir()
    }


def accuracy(folder: Path, method: str) -> float:
    (result,) = (folder / "r/b/runs").glob(f"{method}-*/result.json")
    return json.loads(result.read_text())["last"]["test"]["nll"]


def test_nothing_that_is_printed_or_written_to_any_descriptor_stops_a_bench(folder: Path, warm: Path) -> None:
    (folder / "site").mkdir()
    (folder / "site/sitecustomize.py").write_text(
        "import sys\nif 'kdzoo.suite.run.worker' in sys.orig_argv: print('a site hook', flush=True)\n"
    )
    body = """
    if step == 3:
        print("from Python", flush=True); os.write(1, b"half a line"); os.write(2, b"half a line")
        ctypes.CDLL(None).puts(b"from C"); ctypes.CDLL(None).fflush(None)
    if training and step == 4:
        for descriptor in range(3, 30):
            try: os.write(descriptor, b"noise\\n")
            except OSError: pass
"""
    search = os.pathsep.join(filter(None, [str(folder / "site"), os.environ.get("PYTHONPATH", "")]))
    process = bench(folder, body, environment={"PYTHONPATH": search}, popen=subprocess.Popen)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert outcome(folder) == {"none": "done", "hinton": "done", "odd": "done"}
    assert "without an event on its channel" in output
    assert accuracy(folder, "hinton") == accuracy(warm, "hinton")
    log = (folder / "cache/logs/b/worker-0.log").read_text()
    assert "a site hook" in log
    assert "from C" in log


ROOT = """

@kdzoo.register("root")
def root(student, teacher, batch):
    "The difference of logits; in step 7 the root of a negative number."
    sign = -1 if batch.clock.step == 7 and batch.clock.steps > 10 else 1
    return (sign * F.mse_loss(student.logits, teacher.logits)).sqrt()
"""


def test_a_failure_is_told_when_it_happens_with_method_part_step_and_line(folder: Path) -> None:
    """An exception before the next step; a NaN, which is looked for at an epoch's end, before the second epoch of three."""
    body = "    if training and step == 2: raise ValueError('as planned')\n"
    process = bench(folder, body, "--methods", "hinton,odd,hinton+root", more_code=ROOT)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 1, output
    lines = [line for line in output.splitlines() if line.startswith("[")]
    raised, defined = (HEAD + "x").count("\n") + 1, (HEAD + body + TAIL).count("\n") + 3
    assert re.match(rf"\[1/4\] odd, .*: failed: ValueError: as planned \(in the loss of odd, odd\.py:{raised}\)", lines[0]), output
    words = "failed: FloatingPointError: the loss became NaN or infinite at step 7, in root"
    assert re.match(rf"\[2/4\] hinton\+root, .*: {words} \(odd\.py:{defined}\)", lines[1]), output
    assert all(": val " in line for line in lines[2:]), "runs that train to the end come after those that failed before"
    assert outcome(folder) == {"none": "done", "hinton": "done", "odd": "failed", "hinton+root": "failed"}
    (root,) = (folder / "r/b/runs").glob("hinton+root-*")
    assert not (root / "metrics.jsonl").exists() or len((root / "metrics.jsonl").read_text().splitlines()) <= 1


DEATHS = {
    "killed while a forked process goes on": (
        "    if training and step == 3 and os.fork() == 0: time.sleep(300); os._exit(0)\n"
        "    if training and step == 5: os.kill(os.getpid(), 9)\n",
        "was killed by SIGKILL",
    ),
    "leaves with status 0, past Python": ("    if training and step == 5: ctypes.CDLL(None)._exit(0)\n", "ended with status 0"),
    "closes all descriptors": ("    if training and step == 5: os.closerange(3, 100)\n", "lost the pipe to its driver"),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", DEATHS)
def test_a_run_that_ends_its_process_fails_alone_and_the_bench_says_how(folder: Path, how: str, warm: Path) -> None:
    body, words = DEATHS[how]
    process = bench(folder, body)
    output, _ = process.communicate(timeout=200)
    for left in running_in(process.pid):  # what the method forked
        os.kill(left, signal.SIGKILL)
    assert process.returncode == 1, output
    assert outcome(folder) == {"none": "done", "hinton": "done", "odd": "failed"}
    assert words in output
    assert "1 of 3 runs failed" in output
    assert accuracy(folder, "hinton") == accuracy(warm, "hinton")


@pytest.mark.slow
def test_a_run_that_hangs_is_killed_and_fails_alone_and_the_end_is_notified(folder: Path, warm: Path) -> None:
    tell = "echo $KDZOO_STATUS $KDZOO_RUNS_DONE $KDZOO_RUNS_FAILED $KDZOO_BENCH > told.txt; exit 3"
    process = bench(folder, "    if training and step == 5: time.sleep(1000)\n", "--run-timeout", "8", "--notify", tell)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    assert outcome(folder) == {"none": "done", "hinton": "done", "odd": "failed"}
    assert "made no progress for 8 seconds (--run-timeout) and was killed twice" in output
    assert accuracy(folder, "hinton") == accuracy(warm, "hinton")
    assert (folder / "told.txt").read_text() == f"failed 2 1 {folder / 'r/b'}\n"
    assert "--notify: the command ended with status 3" in output
    assert members_of_group(process.pid) == []


@pytest.mark.slow
def test_a_method_that_forks_and_returns_trains_once(folder: Path, warm: Path) -> None:
    process = bench(folder, "    if training and step == 3: os.fork()\n")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert members_of_group(process.pid) == []
    for method in ("none", "hinton", "odd"):
        (metrics,) = (folder / "r/b/runs").glob(f"{method}-*/metrics.jsonl")
        assert [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()] == list(range(1, EPOCHS + 1))
        assert accuracy(folder, method) == accuracy(warm, method)


@pytest.mark.slow
def test_a_thread_that_does_not_end_keeps_no_worker(folder: Path) -> None:
    process = bench(folder, "    if training and step == 3: threading.Thread(target=time.sleep, args=(300,)).start()\n")
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert members_of_group(process.pid) == []


def _terminate_a_worker(process: subprocess.Popen[str], ready: Path, pattern: str) -> None:
    """Send SIGTERM to the workers of a bench once a file is there."""
    deadline = time.monotonic() + 150
    while not list(ready.glob(pattern)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = [pid for pid in running_in(process.pid) if pid != process.pid]
    assert workers
    for worker in workers:
        os.kill(worker, signal.SIGTERM)


def test_students_of_a_worker_that_was_terminated_are_taken_up_again(folder: Path, warm: Path) -> None:
    shutil.copytree(warm / "cache", folder / "cache", dirs_exist_ok=True)
    process = bench(folder, "    if training: time.sleep(0.02)\n")
    _terminate_a_worker(process, folder, "r/b/runs/hinton-*/metrics.jsonl")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert "a worker was killed by SIGTERM; resuming 3 runs from checkpoints" in output
    assert outcome(folder) == {"none": "done", "hinton": "done", "odd": "done"}
    assert accuracy(folder, "hinton") == accuracy(warm, "hinton")


@pytest.mark.slow
def test_a_teacher_whose_worker_was_terminated_is_trained_to_its_end(tmp_path: Path, warm: Path) -> None:
    process = bench(tmp_path)
    _terminate_a_worker(process, tmp_path, "cache/teachers/runs/*/metrics.jsonl")
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert "was killed by SIGTERM; it resumes from its checkpoint" in output
    assert accuracy(tmp_path, "hinton") == accuracy(warm, "hinton")
