"""A small bench that is stopped at an exact moment: a plugin of its own waits for it in the driver and in every worker.

Moments are what a process is about to do, which Python tells its audit hooks before it happens: to give a whole file its name,
to open or to remove one; or a step of training. Nothing of kdzoo's is replaced. A moment comes once for a folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from processes import started
from safetensors.numpy import load_file
from warm_python import WarmPopen

EPOCHS = 2
MEASURED = ("step_seconds", "train_seconds", "time_ratio", "student_milliseconds", "seconds")
PLUGIN = '''
import ctypes, os, re, signal, sys, time
import kdzoo, torch, torch.nn.functional as F

WHO, EVENT, PLACE, NUMBER, ACT = (os.environ.get("KDZOO_TEST_MOMENT") or "nobody none x 0 none").split()
WORKER = os.path.basename(sys.argv[0]) == "worker.py" or os.environ.get("KDZOO_LAUNCHER") == "here"
seen = 0

def reached():
    """Act once: other processes, and this one's next life, find the mark."""
    try:
        os.close(os.open("reached", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    if ACT == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif ACT == "update-kill":
        os.utime(os.path.join(os.path.dirname(kdzoo.__file__), "text.py"), (0, 0))
        os.kill(os.getpid(), signal.SIGKILL)
    elif ACT == "kill-driver":
        os.kill(os.getppid(), signal.SIGKILL)
    elif ACT == "kill-all":
        os.killpg(0, signal.SIGKILL)
    elif ACT == "fill":
        fill()
    elif ACT == "clock":
        with open("clock", "w") as file:
            file.write("-30h")
    elif ACT == "sleep":
        time.sleep(0.5)
    elif ACT == "memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    elif ACT == "exit":
        libc = ctypes.CDLL(None)
        libc.puts(b"printed by C")
        libc.fflush(None)
        os._exit(0)

def refuse(number, error):
    """Let the system answer a call with an error, in this process and all that it starts: a program of the kernel's filter."""
    class Step(ctypes.Structure):
        _fields_ = [("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("value", ctypes.c_uint)]
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.POINTER(Step))]
    steps = (Step * 4)((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | error), (0x06, 0, 0, 0x7FFF0000))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(Program(4, steps)), 0, 0):  # no new rights, then the filter
        raise OSError(ctypes.get_errno(), "prctl")

if os.environ.get("KDZOO_TEST_REFUSE"):
    refuse(*map(int, os.environ["KDZOO_TEST_REFUSE"].split(":")))

def fill():
    """Take all space of the disk that holds the working folder, or another one."""
    filler = os.open(os.path.join(os.environ.get("KDZOO_TEST_FILL", "."), "filler"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for size in (1 << 20, 4096, 1):
        try:
            while os.write(filler, bytes(size)):
                pass
        except OSError:
            pass
    os.close(filler)

def audit(event, values):
    global seen
    if event != EVENT:
        return
    path = values[1] if event == "os.rename" else values[0]
    if isinstance(path, (str, os.PathLike)) and re.search(PLACE, os.fspath(path)):
        seen += 1
        if seen == int(NUMBER):
            reached()

if WHO == ("worker" if WORKER else "driver"):
    sys.addaudithook(audit)

@kdzoo.register("odd")
def odd(student, teacher, batch):
    "The squared difference of logits."
    if os.environ.get("KDZOO_TEST_PRINT"):
        print("x" * 1000, flush=True)
    if WORKER and EVENT == "step" and batch.clock.steps > 2 and batch.clock.epochs == int(PLACE) and batch.clock.step == int(NUMBER):
        reached()
    if WORKER and batch.clock.epochs == 2 and batch.clock.step == batch.clock.steps - 1 and batch.clock.steps > 2:
        with open("trained.txt", "a") as file:
            file.write("odd\\n")
    return F.mse_loss(student.logits, teacher.logits)
'''
WORDS = ["--data", "digits", "--pairs", "digits", "--recipe", "digits", "--methods", "hinton,odd", "--plugin", "moments_plugin.py"]
WORDS += ["--seeds", "1", "--epochs", str(EPOCHS), "--limit", "300", "--temperatures", "4", "--set", "teacher_recipe.epochs=6"]
WORDS += ["--results", "r", "--name", "b", "-j", "1", "--threads", "1", "--checkpoint-seconds", "1e-9"]


def bench(
    folder: Path,
    *more: str,
    moment: str = "",
    weights: Sequence[str] = ("--alphas", "0.5"),
    environment: Mapping[str, str] | None = None,
    popen: type[subprocess.Popen[Any]] = WarmPopen,
) -> subprocess.Popen[str]:
    """Start the bench, with a cache below its folder. moment: who, the event, which file or of how many epochs, its number, the act."""
    folder.mkdir(exist_ok=True)
    (folder / "moments_plugin.py").write_text(PLUGIN)
    places = {"KDZOO_CACHE": str(folder / "cache"), "WANDB_MODE": "disabled", "COLUMNS": "200", "KDZOO_TEST_MOMENT": moment}
    command = [sys.executable, "-m", "kdzoo", "bench", *WORDS, *weights, *more]
    return started(command, folder=folder, environment={**os.environ, **places, **(environment or {})}, popen=popen)


def ended(process: subprocess.Popen[str], status: int = 0) -> str:
    """What a bench printed until it ended with a status."""
    output, _ = process.communicate(timeout=240)
    assert process.returncode == status, output
    return output


def runs(folder: Path) -> dict[str, Path]:
    """The folders of a bench's runs and of its kept teacher by name."""
    return {path.name: path for place in ("r/b/runs", "cache/teachers/runs") for path in sorted((folder / place).iterdir())}


def assert_undisturbed(folder: Path, undisturbed: Path) -> None:
    """Every run has one result, each epoch once, and the same weights, predictions and numbers to the last bit; the tables too."""
    mine, theirs = runs(folder), runs(undisturbed)
    assert mine.keys() == theirs.keys()
    for name, run in mine.items():
        assert not (run / "error.txt").exists()
        other = theirs[name]
        if (other / "student.safetensors").exists():
            weights, expected = (load_file(place / "student.safetensors") for place in (run, other))
            assert weights.keys() == expected.keys()
            assert all(np.array_equal(weights[key], expected[key]) for key in weights), f"{name} has other weights"
        if (other / "predictions.npz").exists():
            with np.load(run / "predictions.npz") as kept, np.load(other / "predictions.npz") as expected:
                assert all(np.array_equal(kept[key], expected[key]) for key in expected.files), f"{name} has other predictions"
        assert epochs(run) == epochs(other)
        numbers, expected = (json.loads((place / "result.json").read_text()) for place in (run, other))
        assert (numbers["last"], numbers["best"], numbers["train"]) == (expected["last"], expected["best"], expected["train"])
    for table in ("runs.csv", "leaderboard.csv"):
        frame, expected_frame = (pd.read_csv(place / "r/b" / table) for place in (folder, undisturbed))
        timed = [column for column in frame.columns if any(column.endswith(name) for name in MEASURED)]
        pd.testing.assert_frame_equal(frame.drop(columns=timed), expected_frame.drop(columns=timed))


def epochs(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics but for the time that they took, and the digest of both."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "digest")} for line in lines]
