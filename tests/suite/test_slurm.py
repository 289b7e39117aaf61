"""A bench on a real Slurm of two nodes: preempted, out of time, queued again, without its driver, and after the death of a node."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared_benches import (
    assert_nothing_is_left,
    assert_same_results,
    bench,
    kill_tree,
    only,
    process_of,
    slow_checkpoint,
    slow_job,
    wait_until,
)
from slurm_cluster import SlurmCluster, slurm_cluster, why_not

from kdzoo.errors import InputError
from kdzoo.runs.options import WorkerOptions
from kdzoo.suite.plan.jobs import Job
from kdzoo.suite.run.claim import Claim
from kdzoo.suite.run.launchers import LauncherSetup, create_launcher
from kdzoo.suite.run.launchers.slurm import ArrayTask
from kdzoo.suite.run.work_folder import WorkFolder

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
LEASE = 4.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as started:
        yield started


def start(folder: Path, cluster: SlurmCluster, step: str, *asked: str, processes: int = 2) -> subprocess.Popen[str]:
    """Start the bench on the cluster, with what a slow step takes in seconds, and what Slurm is asked for."""
    words = ["--launcher", "slurm", "--lease-seconds", str(LEASE), "-j", str(processes)]
    words += [word for key in asked or ("timeout_min=20",) for word in ("--launcher-option", key)]
    return bench(folder, *words, environment={**cluster.environment, "KDZOO_TEST_STEP": step})


def test_options_that_submitit_does_not_know_are_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="sbatch was not found"):
        create_launcher(LauncherSetup(tmp_path), "slurm")


@pytest.mark.slow
def test_a_bench_that_is_preempted_and_loses_a_node_ends_with_the_same_weights(tmp_path, cluster, undisturbed):
    shutil.copytree(undisturbed / "cache", tmp_path / "cache")
    driver = start(tmp_path, cluster, "0.4")
    wait_until(lambda: list(tmp_path.glob("r/b/runs/slow-*/checkpoint/state.pt")), [driver], 300)
    job, checkpoint = slow_job(tmp_path), slow_checkpoint(tmp_path)

    first = (job / "claimed").read_text()
    cluster.ask("sbatch", "-p", "urgent", "-N2", "-o", "/dev/null", "--wrap", "sleep 1")
    wait_until(lambda: (job / "claimed").read_text() != first, [driver], 300)
    logs = "".join(file.read_text() for file in (tmp_path / "r/b/work/slurm").glob("*_log.err"))
    assert "Caught signal SIGUSR2" in logs, "submitit had the checkpoint written before the job left the node"

    saved = checkpoint.stat().st_mtime_ns
    wait_until(lambda: checkpoint.stat().st_mtime_ns != saved, [driver], 300)
    name = node_of(process_of(job))
    kill_tree(cluster.pid(f"slurmd.{name}"))
    for step in steps_on(name):
        kill_tree(step)
    output, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0, output
    assert_same_results(tmp_path, undisturbed)
    assert not (tmp_path / "r/b/work").exists()
    assert cluster.ask("squeue", "-h", "--name=b") == ""


@pytest.mark.slow
def test_tasks_go_on_without_their_driver_past_the_end_of_their_time_and_the_same_command_follows_them(tmp_path, cluster, undisturbed):
    """The driver is killed; the same command submits no second task; Slurm sends USR2 before the time is over, up to a minute early."""
    shutil.copytree(undisturbed / "cache", tmp_path / "cache")
    asked = ("timeout_min=2", "slurm_signal_delay_s=20")
    driver = start(tmp_path, cluster, "2", *asked, processes=1)
    wait_until(lambda: list(tmp_path.glob("r/b/runs/slow-*/checkpoint/state.pt")), [driver], 300)
    job = only(tmp_path, "r/b/work/students-*")
    first, submitted = (job / "claimed").read_text(), (job / "task").read_text()
    driver.kill()
    driver.wait()
    again = start(tmp_path, cluster, "2", *asked, processes=1)
    wait_until(lambda: (job / "claimed").read_text() != first, [again], 300)
    logs = "".join(file.read_text() for file in (tmp_path / "r/b/work/slurm").glob(f"{submitted}*_log.err"))
    assert "Caught signal SIGUSR2" in logs
    assert "this job is timed-out" in logs
    assert (job / "task").read_text() == submitted, "the task of the first driver goes on, and there is no other"
    output, _ = again.communicate(timeout=400)
    assert again.returncode == 0, output
    assert_same_results(tmp_path, undisturbed)
    wait_until(lambda: not cluster.ask("squeue", "-h", "--name=b"), [])
    assert_nothing_is_left(tmp_path, driver.pid, again.pid)


def test_a_node_that_lacks_what_a_job_needs_is_told_to_the_driver_by_name(tmp_path):
    one = Job("at-1", "students", str(tmp_path), ("at-1",), WorkerOptions())
    folder = WorkFolder.of_bench(tmp_path).publish(one, 1, LauncherSetup(tmp_path, ("gone.py",), bench=tmp_path))
    ArrayTask(str(folder.path))()
    end = folder.end()
    assert end is not None
    assert f"{os.uname().nodename}: the plugin {Path.cwd() / 'gone.py'} is not there" in end.refused


def test_a_node_that_lacks_something_ends_no_job_that_another_has(tmp_path):
    """A worker of `kdzoo work` beside Slurm, on a machine that has the plugin."""
    one = Job("at-1", "students", str(tmp_path), ("at-1",), WorkerOptions())
    folder = WorkFolder.of_bench(tmp_path).publish(one, 1, LauncherSetup(tmp_path, ("gone.py",), bench=tmp_path))
    shared = folder.read()
    claim = Claim(folder, shared.token, shared.lease_seconds)
    assert claim.take() is not None
    try:
        with pytest.raises(InputError, match="is not there"):
            ArrayTask(str(folder.path))()
    finally:
        claim.give_back()
    assert folder.end() is None


def node_of(process: int) -> str:
    """The node that a process of a job is on."""
    variables = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    (name,) = (one.partition(b"=")[2].decode() for one in variables if one.startswith(b"SLURMD_NODENAME="))
    return name


def steps_on(node: str) -> list[int]:
    """The daemons of the steps on a node: parents of processes whose environment names it."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if f"SLURMD_NODENAME={node}\0".encode() in (entry / "environ").read_bytes():
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    if (Path("/proc") / str(parent) / "comm").read_text().startswith("slurmstepd"):
                        found.add(parent)
            except OSError:
                continue
    return sorted(found)
