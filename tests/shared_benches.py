"""A small bench that workers of several launchers compute, and how it is compared with one that nothing disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from processes import left_of, members_of_group, started
from safetensors.numpy import load_file
from warm_python import WarmPopen

from kdzoo.runs.store import Store

EPOCHS = 3
WORDS = ["--methods", "hinton,slow", "--plugin", "slow.py", "--quick", "--epochs", str(EPOCHS), "--temperatures", "4", "--alphas", "0.5"]
SLOW = """
import os, time
import kdzoo, torch.nn.functional as F

@kdzoo.register("slow")
def slow(student, teacher, batch):
    "The squared difference of logits, slow enough that one can stop it in the middle."
    if batch.clock.steps > 10:
        time.sleep(float(os.environ.get("KDZOO_TEST_STEP", "0")))
    return F.mse_loss(student.logits, teacher.logits)
"""


def bench(
    folder: Path, *more: str, environment: Mapping[str, str] | None = None, popen: type[subprocess.Popen[Any]] = WarmPopen
) -> subprocess.Popen[str]:
    """Start a bench of three runs on the digits, with the folder's own cache."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "slow.py").write_text(SLOW)
    command = [sys.executable, "-m", "kdzoo", "bench", *WORDS, "--results", "r", "--name", "b", "-j", "2", "--threads", "1"]
    return started(
        [*command, "--checkpoint-seconds", "0.2", *more], folder=folder, environment=surroundings(folder, environment), popen=popen
    )


def work(folder: Path, step: str = "0.1") -> subprocess.Popen[str]:
    """Start `kdzoo work` on the bench, in another folder than the bench was started in."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "kdzoo", "work", str(folder / "r/b")]
    return started(command, folder=elsewhere, environment=surroundings(folder, {"KDZOO_TEST_STEP": step}))


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


def slow_checkpoint(folder: Path) -> Path:
    """The checkpoint of the slow run; its folder is there once the bench has planned it."""
    return only(folder, "r/b/runs/slow-*") / "checkpoint/state.pt"


def slow_job(folder: Path) -> Path:
    """The folder of the job that trains the slow run."""
    (job,) = (
        file.parent
        for file in folder.glob("r/b/work/students-*/job.json")
        if json.loads(file.read_text())["job"]["ids"][0].startswith("slow")
    )
    return job


def process_of(job: Path) -> int:
    """The process that claims a job."""
    return int((job / "claimed").read_text().rpartition("-")[2])


def assert_nothing_is_left(folder: Path, *groups: int) -> None:
    """No job and no lease in the bench's folder, no process of a group, none that works for the bench elsewhere, no run that is locked."""
    assert not (folder / "r/b/work").exists()
    assert [process for group in groups for process in members_of_group(group)] == []
    assert left_of(lambda: working_for(folder)) == []
    for run_id in (store := Store(folder / "r/b")).ids():
        with store.run(run_id).lock() as free:
            assert free, f"{run_id} is locked"


def working_for(folder: Path) -> list[int]:
    """The processes whose cache folder is the bench's, as a launcher gives it to workers that it starts anew."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and f"KDZOO_CACHE={folder}/cache\0".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def kill_tree(process: int) -> None:
    """Kill a process and all that descend from it, as the end of a machine does: parents first, so that none sees its child die."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    waiting = [process]
    while waiting:
        one = waiting.pop(0)
        waiting += children.get(one, [])
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def surroundings(folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "KDZOO_CACHE": str(folder / "cache"), "WANDB_MODE": "disabled", "COLUMNS": "200", **(more or {})}


def wait_until(there: Callable[[], object], processes: list[subprocess.Popen[str]], seconds: float = 120.0) -> None:
    """Wait for something that processes bring about; fails where one of them ends before, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while not there():
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def assert_same_results(folder: Path, undisturbed: Path) -> None:
    """Every run has one result with one line an epoch, and the weights of the bench that nothing disturbed, bit for bit."""
    runs = sorted(path.name for path in (undisturbed / "r/b/runs").iterdir())
    assert sorted(path.name for path in (folder / "r/b/runs").iterdir()) == runs
    for run in runs:
        mine, other = folder / "r/b/runs" / run, undisturbed / "r/b/runs" / run
        assert (mine / "result.json").exists(), f"{run} has no result"
        assert not (mine / "error.txt").exists()
        lines = [json.loads(line)["epoch"] for line in (mine / "metrics.jsonl").read_text().splitlines()]
        assert lines == list(range(1, EPOCHS + 1)), f"{run}: every epoch once"
        weights, expected = (load_file(place / "student.safetensors") for place in (mine, other))
        assert weights.keys() == expected.keys()
        assert all(np.array_equal(weights[name], expected[name]) for name in weights), f"{run} has other weights"
    rows = (folder / "r/b/runs.csv").read_text().splitlines()
    assert len(rows) == len(runs) + 1, "a row a run"
