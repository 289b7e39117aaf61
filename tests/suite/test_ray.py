"""A bench on a real Ray cluster of a head and two nodes on this machine, one of which is killed in the middle."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_cluster import ON_LOOPBACK, ray_cluster
from shared_benches import assert_nothing_is_left, assert_same_results, bench, process_of, slow_checkpoint, slow_job, wait_until

from kdzoo.errors import InputError
from kdzoo.suite.run.launchers import LauncherSetup, create_launcher

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'ray[default]'")
LEASE = 4.0
STEP = "0.5"
"""seconds of a step of the slow run"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with ray_cluster(environment={"KDZOO_TEST_STEP": STEP}) as started:  # workers have the nodes' environment, not the driver's
        yield started


def test_what_the_engine_does_not_know_is_refused_before_any_work(tmp_path):
    with pytest.raises(InputError, match="launcher_option: unknown adress; known: address"):
        create_launcher(LauncherSetup(tmp_path, options={"adress": "auto"}), "ray")


@pytest.mark.slow
def test_a_bench_whose_node_is_killed_ends_with_the_same_weights(tmp_path: Path, cluster: Any, undisturbed: Path) -> None:
    shutil.copytree(undisturbed / "cache", tmp_path / "cache")
    words = ["--launcher", "ray", "--lease-seconds", str(LEASE), "--launcher-option", f"address={cluster.address}"]
    driver = bench(tmp_path, *words, environment={ON_LOOPBACK: "0"})
    wait_until(lambda: list(tmp_path.glob("r/b/runs/slow-*/checkpoint/state.pt")), [driver], 300)
    assert slow_checkpoint(tmp_path).exists()
    claims = slow_job(tmp_path) / "claimed"
    first = claims.read_text()
    (node,) = (node for node in cluster.worker_nodes if raylet_of(process_of(claims.parent)) in pids_of(node))
    cluster.remove_node(node, allow_graceful=False)
    wait_until(lambda: claims.exists() and claims.read_text() != first, [driver], 300)  # the job may be published anew meanwhile
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, output
    assert_same_results(tmp_path, undisturbed)
    assert not (tmp_path / "r/b/work").exists()


@pytest.mark.slow
def test_the_same_command_goes_on_after_the_death_of_its_driver_with_whom_ray_ends_its_tasks(
    tmp_path: Path, cluster: Any, undisturbed: Path
) -> None:
    shutil.copytree(undisturbed / "cache", tmp_path / "cache")
    words = ["--launcher", "ray", "--lease-seconds", str(LEASE), "-j", "1", "--launcher-option", f"address={cluster.address}"]
    driver = bench(tmp_path, *words, environment={ON_LOOPBACK: "0"})
    wait_until(lambda: list(tmp_path.glob("r/b/runs/slow-*/checkpoint/state.pt")), [driver], 300)
    driver.kill()
    driver.wait()
    again = bench(tmp_path, *words, environment={ON_LOOPBACK: "0"})
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    assert_same_results(tmp_path, undisturbed)
    assert_nothing_is_left(tmp_path, driver.pid, again.pid)


@pytest.mark.slow
def test_a_node_that_lacks_what_the_runs_need_is_named_before_any_work(tmp_path: Path, cluster: Any, undisturbed: Path) -> None:
    """The data folder that the driver sees is gone when the nodes look for it."""
    shutil.copytree(undisturbed / "cache", tmp_path / "cache")
    words = ["--launcher", "ray", "--launcher-option", f"address={cluster.address}"]
    driver = bench(tmp_path, *words, environment={"KDZOO_DATA": str(tmp_path / "nowhere"), ON_LOOPBACK: "0"})
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 2, output
    assert f"launcher ray: {os.uname().nodename}: the data folder {tmp_path / 'nowhere'} is not there" in output
    assert not list(tmp_path.glob("r/b/runs/*/result.json"))


def raylet_of(process: int) -> int:
    """The raylet that has started a worker process."""
    return int((Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[1])


def pids_of(node: Any) -> set[int]:
    return {process.process.pid for group in node.all_processes.values() for process in group}
