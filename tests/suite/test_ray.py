"""A bench on a real Ray cluster of a head and two nodes on this machine, one of which is killed in the middle."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shared_benches import assert_same_results, bench, process_of, slow_checkpoint, slow_job, wait_until

from kdzoo.errors import InputError
from kdzoo.suite.run.launchers import LauncherSetup, create_launcher

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'ray[default]'")
LEASE = 4.0
STEP = "0.5"
"""seconds of a step of the slow run"""
ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""set to 0 it has Ray use 127.0.0.1 alone, which it does elsewhere only on these systems"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without a CPU, and two nodes of one CPU, which notice within seconds that one of them is gone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ON_LOOPBACK, "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "300")
        patch.setenv("KDZOO_TEST_STEP", STEP)  # workers have the nodes' environment, not the driver's
        from ray.cluster_utils import Cluster

        soon = {"health_check_period_ms": 1000, "health_check_timeout_ms": 5000, "health_check_failure_threshold": 3}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": {**soon, "health_check_initial_delay_ms": 0}}
        started = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                started.add_node(num_cpus=1, include_dashboard=False)
            started.wait_for_nodes()
            yield started
        finally:
            started.shutdown()


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
