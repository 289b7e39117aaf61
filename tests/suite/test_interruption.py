"""A bench that is killed, stopped or shared ends as one that nobody disturbed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from processes import members_of_group, started
from safetensors.torch import load_file
from warm_python import OtherHashPopen, WarmPopen

MEASURED_TIMES = ["step_seconds", "train_seconds", "time_ratio", "student_milliseconds", "seconds"]

CONFIG = {
    "name": "b",
    "data": "digits",
    "pairs": ["digits"],
    "recipe": "digits",
    "methods": ["hinton", "crd", "fitnet+hinton"],
    "seeds": [0],
    "epochs": 6,
    "limit": 300,
    "jobs": 1,
    "threads": 1,
    "checkpoint_seconds": 0.05,
    "set": {"teacher_recipe.epochs": 6},
}


def start(folder: Path, *more: str, popen: type[subprocess.Popen[Any]] = WarmPopen) -> subprocess.Popen[str]:
    """The bench as a user starts it, in a process group of its own, with a cache of its own."""
    (folder / "bench.yaml").write_text(yaml.safe_dump(CONFIG))
    command = [sys.executable, "-m", "kdzoo", "bench", "-c", "bench.yaml", "--results", "results", *more]
    environment = {**os.environ, "KDZOO_CACHE": str(folder / "cache"), "WANDB_MODE": "disabled"}
    return started(command, folder=folder, environment=environment, popen=popen)


def ended_well(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def runs(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted((folder / "results/b/runs").iterdir())}


def epochs(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "digest")} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    ended_well(start(folder, popen=OtherHashPopen))
    return folder


def assert_same(folder: Path, undisturbed: Path) -> None:
    """Same runs, same weights bit for bit, every epoch once and the same, same tables but for measured times."""
    assert list(runs(folder)) == list(runs(undisturbed))
    for name, run in runs(folder).items():
        mine, theirs = load_file(run / "student.safetensors"), load_file(runs(undisturbed)[name] / "student.safetensors")
        assert mine.keys() == theirs.keys()
        assert all(mine[key].equal(theirs[key]) for key in mine), f"{name} ended with other weights"
        assert epochs(run) == epochs(runs(undisturbed)[name])
        assert [line["epoch"] for line in epochs(run)] == list(range(1, CONFIG["epochs"] + 1))
    for table in ("runs.csv", "leaderboard.csv"):
        mine, theirs = (pd.read_csv(place / "results/b" / table) for place in (folder, undisturbed))
        timed = [column for column in mine.columns if any(column.endswith(name) for name in MEASURED_TIMES)]
        pd.testing.assert_frame_equal(mine.drop(columns=timed), theirs.drop(columns=timed))


def lines_written(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in folder.glob("**/metrics.jsonl"))


def under_way(place: Path, lines: int) -> subprocess.Popen[str]:
    """A bench that has written so many lines of epochs, or ended, or taken two minutes."""
    process = start(place)
    deadline = time.monotonic() + 120
    while lines_written(place) < lines and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return process


@pytest.mark.slow
def test_a_bench_that_is_killed_again_and_again_ends_as_an_undisturbed_one(tmp_path, undisturbed):
    """SIGKILL for the whole process group: while the teacher trains, and as its students begin and nearly end."""
    for after in (3, 9, 24):
        process = under_way(tmp_path, after)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    ended_well(start(tmp_path))
    assert_same(tmp_path, undisturbed)


@pytest.mark.slow
def test_a_bench_whose_parent_alone_is_killed_leaves_no_orphan_and_goes_on(tmp_path, undisturbed):
    process = under_way(tmp_path, 9)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while members_of_group(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert members_of_group(process.pid) == []
    ended_well(start(tmp_path))
    assert_same(tmp_path, undisturbed)


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_exits_with_130(tmp_path, undisturbed):
    process = under_way(tmp_path, 9)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "same command" in said
    assert "Traceback" not in said
    ended_well(start(tmp_path))
    assert_same(tmp_path, undisturbed)


SLOW = """
import os, pathlib, time, kdzoo
@kdzoo.register("slow")
def slow(student, teacher, batch):
    if batch.clock.step == 2:
        pathlib.Path(os.environ["KDZOO_CACHE"], "begun").touch()
        time.sleep(12)
    return student.logits.square().mean()
"""


@pytest.mark.slow
def test_what_takes_long_to_stop_is_announced_and_a_second_ctrl_c_does_not_wait(tmp_path):
    """A step of twelve seconds, after which alone the worker would look whether it is to stop."""
    (tmp_path / "slow.py").write_text(SLOW)
    process = start(tmp_path, "--methods", "slow", "--plugin", "slow.py")
    deadline = time.monotonic() + 120
    while not (tmp_path / "cache" / "begun").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(3)
    os.kill(process.pid, signal.SIGINT)
    began = time.monotonic()
    said, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 6, "the step had nine seconds left"
    assert process.returncode == 130, said
    assert "kdzoo: stopping: what is being trained is checkpointed first; Ctrl-C once more ends it at once" in said
    assert said.rstrip().endswith("kdzoo: interrupted; run the same command to resume")
    assert members_of_group(process.pid) == []


@pytest.mark.slow
def test_the_same_command_again_trains_nothing(undisturbed):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.glob("results/b/runs/*/*") if path.name != ".lock"}
    ended_well(start(undisturbed))
    after = {path: path.stat().st_mtime_ns for path in undisturbed.glob("results/b/runs/*/*") if path.name != ".lock"}
    assert after == before


WITNESS = """
import os
import kdzoo

@kdzoo.register("witness", needs=kdzoo.Need.LOGITS)
class Witness(kdzoo.Method):
    power: float = 2.0

    def loss(self, student, teacher, batch, module):
        trained = len(student.logits) > 4  # a trial before training has a few images
        if trained and batch.clock.step == batch.clock.steps - 1 and batch.clock.epochs > 1:
            with open(os.environ["WITNESS"], "a") as file:
                file.write(f"{self.power}\\n")
        return (student.logits.softmax(1) - teacher.logits.detach().softmax(1)).abs().pow(self.power).mean()
"""


@pytest.mark.slow
def test_two_benches_in_one_folder_share_the_work_and_train_no_run_twice(tmp_path, monkeypatch):
    (tmp_path / "witness.py").write_text(WITNESS)
    monkeypatch.setenv("WITNESS", str(tmp_path / "trained.txt"))
    powers = ["1", "2", "3"]
    options = ["--plugin", "witness.py", "--methods", "witness", "--grid", f"witness.power={','.join(powers)}"]
    options += ["--seeds", "2", "--epochs", "4"]
    both = [start(tmp_path, *options), start(tmp_path, *options)]
    for process in both:
        ended_well(process)
    trained = (tmp_path / "trained.txt").read_text().split()
    assert sorted(map(float, trained)) == sorted(float(power) for power in powers for _ in range(2))
    assert all((run / "result.json").exists() for run in runs(tmp_path).values())


KILLER = """
import os, signal
import kdzoo

@kdzoo.register("killer", needs=kdzoo.Need.LOGITS)
def killer(student, teacher, batch):
    if batch.clock.step == 10:
        os.kill(os.getpid(), signal.SIGKILL)
    return (student.logits - teacher.logits.detach()).pow(2).mean()

@kdzoo.register("thrower", needs=kdzoo.Need.LOGITS)
def thrower(student, teacher, batch):
    if batch.clock.step == 10:
        raise RuntimeError("a bug of the plugin")
    return (student.logits - teacher.logits.detach()).pow(2).mean()

@kdzoo.register("diverging", needs=kdzoo.Need.LOGITS)
def diverging(student, teacher, batch):
    bad = 10 <= batch.clock.step < batch.clock.steps - 1
    return (student.logits - teacher.logits.detach()).pow(2).mean() * (float("nan") if bad else 1.0)
"""


@pytest.mark.slow
def test_what_kills_throws_or_diverges_fails_alone_and_its_neighbours_end_as_ever(tmp_path, undisturbed):
    (tmp_path / "killer.py").write_text(KILLER)
    process = start(tmp_path, "--plugin", "killer.py", "--methods", "hinton,crd,fitnet+hinton,killer,thrower,diverging")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1, said
    failed = {name.partition("-")[0]: run for name, run in runs(tmp_path).items() if not (run / "result.json").exists()}
    assert sorted(failed) == ["diverging", "killer", "thrower"]
    assert "SIGKILL" in (failed["killer"] / "error.txt").read_text()
    assert "RuntimeError: a bug of the plugin" in (failed["thrower"] / "error.txt").read_text()
    assert "NaN" in (failed["diverging"] / "error.txt").read_text()
    assert "a bug of the plugin" in said
    for name in set(runs(tmp_path)) & set(runs(undisturbed)):
        mine, theirs = (load_file(place[name] / "student.safetensors") for place in (runs(tmp_path), runs(undisturbed)))
        assert all(mine[key].equal(theirs[key]) for key in mine), f"{name} was disturbed by its neighbour"
    assert set(runs(undisturbed)) <= set(runs(tmp_path))

    (tmp_path / "killer.py").write_text(KILLER)
    again = start(tmp_path, "--plugin", "killer.py", "--methods", "hinton,thrower", "--retry-failed")
    again.communicate(timeout=300)
    assert again.returncode == 1
