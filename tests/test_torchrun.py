"""Runs that processes started by torchrun train together, on one machine and on two that see the same folders."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from warm_python import SEED, WarmPopen

from kdzoo.errors import InputError
from kdzoo.runs.options import ExecutionSpec
from kdzoo.suite.run.launchers.gpus import VISIBLE, see_own_gpu
from kdzoo.suite.run.sharing import problems_of_sharing
from kdzoo.suite.run.torchrun import TorchrunProcess, asks_for_cpu, asks_for_torchrun, torchrun_process

pytestmark = pytest.mark.slow
BENCH = "bench --data digits --methods hinton,rkd --temperatures 4 --seeds 1 --no-refit --keep student --threads 1"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start(words: str, place: Path, *torchrun: str) -> subprocess.Popen[str]:
    """Start a torchrun with the processes of one machine, in a group of its own."""
    command = [sys.executable, "-m", "torch.distributed.run", *torchrun, "-m", "kdzoo", *words.split()]
    environment = {**os.environ, "KDZOO_CACHE": str(place / "cache"), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return WarmPopen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a torchrun; what it and its processes printed."""
    try:
        return process.communicate(timeout=240)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def students(results: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {file.parent.name: load_file(file) for file in results.glob("digits/runs/*/student.safetensors")}


def test_two_machines_come_to_the_bits_of_two_processes_of_one(place, kdzoo):
    """Which are those of one process up to rounding (test_processes_per_run)."""
    local = kdzoo(*f"{BENCH} --epochs 1 --results local --processes-per-run 2".split())
    assert local.status == 0, local.err
    words = f"{BENCH} --epochs 1 --results shared --launcher torchrun --processes-per-run 2"
    meeting = ("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}")
    both = [start(words, place, *meeting, f"--node-rank={rank}") for rank in range(2)]
    told = [finish(process) for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(told)
    assert sum("leaderboard: shared/digits/leaderboard.md" in one for one in told) == 1, "the first process alone tells"
    of_one_machine, of_two = students(place / "local"), students(place / "shared")
    assert of_one_machine.keys() == of_two.keys()
    assert len(of_two) == 3
    for run_id, weights in of_two.items():
        assert all(torch.equal(value, of_one_machine[run_id][name]) for name, value in weights.items()), run_id


def test_processes_of_which_one_is_killed_are_started_again_and_resume(place):
    """By torchrun's own --max-restarts; no result is lost or doubled."""
    words = f"{BENCH} --epochs 5 --results shared --launcher torchrun --processes-per-run 2"
    meeting = ("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}")
    process = start(words, place, "--nproc-per-node=2", *meeting, "--max-restarts=1")
    metrics = place / "shared" / "digits" / "runs"
    deadline = time.monotonic() + 200
    while not any(file.stat().st_size for file in metrics.glob("*/metrics.jsonl")):
        assert time.monotonic() < deadline, finish(process)
        assert process.poll() is None, finish(process)
        time.sleep(0.05)
    workers = [pid for pid in children_of(process.pid) if Path(f"/proc/{pid}/comm").read_text().strip() != SEED]
    followers = [pid for pid in workers if not any(file.is_relative_to(place / "shared") for file in open_files(pid))]
    assert (len(workers), len(followers)) == (2, 1), "the first process alone writes"
    os.kill(followers[0], signal.SIGKILL)
    told = finish(process)
    assert process.returncode == 0, told
    assert "3 done" in told or "leaderboard: shared/digits/leaderboard.md" in told
    assert len(students(place / "shared")) == 3


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def open_files(pid: int) -> set[Path]:
    return {Path(os.readlink(file)) for file in Path(f"/proc/{pid}/fd").iterdir()}


def test_a_command_that_trains_nothing_ends_all_processes(place):
    """Such as one that finds that nothing is left to do."""
    words = f"{BENCH} --epochs 1 --dry-run --launcher torchrun --processes-per-run 2"
    process = start(words, place, "--nproc-per-node=2", f"--master-port={free_port()}")
    told = finish(process)
    assert process.returncode == 0, told
    assert told.count("methods       student alone") == 1, "the first process alone tells"


def test_variables_that_torchrun_has_left_behind_stop_no_other_command(kdzoo_process, monkeypatch):
    """A training script may start kdzoo as a program of its own."""
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert kdzoo_process("--version").status == 0


def test_processes_of_torchruns_that_do_not_train_together_are_told_so_once(kdzoo, place, monkeypatch):
    """Variables of a process among two, as torchrun sets them; the second one tells nothing."""
    words = ["bench", "--data", "digits", "--pairs", "digits", "--recipe", "digits", "--methods", "hinton", "--dry-run", "--results", "r"]
    told = {}
    for rank in ("0", "1"):
        for name, value in {"TORCHELASTIC_RUN_ID": "none", "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        shown = kdzoo(*words)
        assert shown.status == 0, shown.err
        told[rank] = " ".join((shown.out + shown.err).split())
    sentence = (
        "torchrun has started 2 processes, and each of them trains this bench by itself; with --launcher torchrun --processes-per-run 2"
    )
    assert (sentence in told["0"], sentence in told["1"]) == (True, False)


def test_options_that_torchrun_decides_are_refused_and_all_processes_end(place):
    process = start(f"{BENCH} --epochs 1 --launcher torchrun --jobs 2", place, "--nproc-per-node=2", f"--master-port={free_port()}")
    told = finish(process)
    assert process.returncode != 0
    assert "torchrun has started 2 processes; give --processes-per-run 2, got 1" in told
    assert "jobs: expected 1" in told


@pytest.mark.parametrize(
    ("words", "on_cpu"),
    [
        ("bench --device cpu", True),
        ("bench --device=cpu -c gpu.yaml", True),
        ("bench -c cpu.yaml", True),
        ("bench -ccpu.yaml", True),
        ("bench --config cpu.yaml", True),
        ("bench --config=cpu.yaml --device cuda", False),
        ("bench -c gpu.yaml", False),
        ("bench -c gone.yaml", False),
        ("bench -c broken.yaml", False),
        ("bench", False),
    ],
)
def test_a_device_and_a_launcher_count_wherever_they_are_named(place, words, on_cpu):
    (place / "cpu.yaml").write_text("device: cpu\nlauncher: torchrun\n")
    (place / "gpu.yaml").write_text("device: cuda\n")
    (place / "broken.yaml").write_text("device: [cpu\n")
    assert asks_for_cpu(words.split()) is on_cpu
    assert asks_for_torchrun(words.split()) is ("cpu.yaml" in words)
    assert asks_for_torchrun([*words.split(), "--launcher", "torchrun"])


def test_a_process_of_torchruns_knows_its_place_and_sees_its_own_gpu(monkeypatch):
    variables = {"TORCHELASTIC_RUN_ID": "none", "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8"}
    assert torchrun_process(variables) == TorchrunProcess(5, 1, 8)
    assert torchrun_process({**variables, "WORLD_SIZE": "1"}) is None
    assert torchrun_process({name: value for name, value in variables.items() if name != "TORCHELASTIC_RUN_ID"}) is None
    for before, after in ((None, "1"), ("4,6", "6"), ("", "")):
        environment = {} if before is None else {VISIBLE: before}
        see_own_gpu(1, environment)
        assert environment[VISIBLE] == after
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="names 1 GPUs"):
        see_own_gpu(1, {VISIBLE: "4"})
    asked = {"launcher": "torchrun", "processes_per_run": 8}
    assert list(problems_of_sharing(ExecutionSpec(**asked), "cuda", gpus=1)) == []
    (fault,) = problems_of_sharing(ExecutionSpec(launcher="torchrun"), "cpu", gpus=0)
    assert fault == "processes_per_run: torchrun has started 8 processes; give --processes-per-run 8, got 1"
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    (fault,) = problems_of_sharing(ExecutionSpec(**asked), "cpu", gpus=0)
    assert fault.startswith("launcher: torchrun starts the processes itself")
