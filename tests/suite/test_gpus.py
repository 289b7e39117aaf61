"""On a machine with several GPUs every worker process sees one of them, whatever the machine that this test runs on has."""

import os
import signal
from pathlib import Path

import pytest

from kdzoo.runs.options import WorkerOptions
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.run.job_queue import JobQueue
from kdzoo.suite.run.launchers.gpus import first_gpu, visible_gpus
from kdzoo.suite.run.launchers.launcher import LauncherSetup
from kdzoo.suite.run.launchers.local import Local
from kdzoo.suite.run.prepare import processes


def children() -> list[int]:
    return [int(word) for file in Path(f"/proc/{os.getpid()}/task").glob("*/children") for word in file.read_text().split()]


def environment(process: int) -> dict[str, str]:
    entries = Path(f"/proc/{process}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [(("0", "1"), ["0", "1", "0"]), (("GPU-a", "GPU-b", "GPU-c", "GPU-d"), ["GPU-a", "GPU-b", "GPU-c"]), ((), ["5", "5", "5"])],
    ids=["more workers than GPUs", "more GPUs than workers", "no GPUs to share"],
)
@pytest.mark.usefixtures("new_interpreters")
def test_workers_take_the_gpus_in_turn(tmp_path, monkeypatch, gpus, expected):
    """In the environment of the processes that the launcher starts: before torch is imported there, or it has no effect."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    before = set(children())
    seen: list[str] = []

    def look_and_kill() -> bool:
        workers = sorted(set(children()) - before)
        if workers:
            seen.extend(environment(worker)["CUDA_VISIBLE_DEVICES"] for worker in workers)
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
        return bool(workers)

    jobs = [Job(str(number), "students", str(tmp_path), (), WorkerOptions()) for number in range(4)]
    with Local(LauncherSetup(logs=tmp_path / "logs", device="cpu")) as launcher:
        launcher.resize(3, gpus)
        launcher.run(JobQueue(jobs), lambda job, event: None, look_and_kill)
    assert seen == expected


@pytest.mark.parametrize(
    ("environment", "count", "expected"),
    [
        ({}, 3, ("0", "1", "2")),
        ({"CUDA_VISIBLE_DEVICES": "2, 3"}, 2, ("2", "3")),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8f,MIG-2a"}, 2, ("GPU-8f", "MIG-2a")),
        ({"CUDA_VISIBLE_DEVICES": "1,-1,0"}, 1, ("1",)),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0, ()),
        ({}, 0, ()),
    ],
)
def test_only_gpus_that_the_environment_allows_are_shared(environment, count, expected):
    """count is what torch sees: it stops at the first name that is none."""
    assert visible_gpus(count, environment) == expected


@pytest.mark.parametrize(
    ("device", "environment", "expected"),
    [
        ("auto", {}, ("0",)),
        ("cuda", {"CUDA_VISIBLE_DEVICES": "3,4"}, ("3",)),
        ("cpu", {}, ()),
        ("cuda:1", {}, ()),
        ("auto", {"CUDA_VISIBLE_DEVICES": ""}, ()),
        ("auto", {"CUDA_VISIBLE_DEVICES": "-1"}, ()),
    ],
)
def test_the_worker_that_starts_before_the_gpus_are_counted_gets_the_first(device, environment, expected):
    assert first_gpu(device, environment) == expected


def test_every_gpu_has_a_process_and_cores_are_divided_among_them(place, monkeypatch):
    """Three seeds of one setting are three cohorts."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(16))
    config = bench_config({"methods": "hinton", "seeds": 3, "epochs": 1, "limit": 300}, None)
    made = plan(config)
    assert processes(config, "cuda", made, gpus=2) == (2, 8)
    assert processes(config, "cuda", made, gpus=8) == (3, 5)
    assert processes(config, "cuda", made, gpus=0) == (1, 16)
    more = bench_config({"methods": "hinton", "seeds": 3, "epochs": 1, "limit": 300, "jobs": 4, "threads": 1}, None)
    assert processes(more, "cuda", made, gpus=2) == (4, 1)
