"""A Ray cluster of a head without a CPU and of one-CPU nodes on this machine, on the loopback."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""set to 0 it has Ray use 127.0.0.1 alone, which it does elsewhere only on these systems"""


@contextlib.contextmanager
def ray_cluster(nodes: int = 2, environment: Mapping[str, str] | None = None) -> Iterator[Any]:
    """Start a cluster that notices within seconds that a node is gone; end it on leaving. environment: of its nodes, and so of workers."""
    before = dict(os.environ)
    os.environ.update({ON_LOOPBACK: "0", "RAY_raylet_start_wait_time_s": "300", **(environment or {})})
    try:
        from ray.cluster_utils import Cluster

        soon = {"health_check_period_ms": 1000, "health_check_timeout_ms": 5000, "health_check_failure_threshold": 3}
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": {**soon, "health_check_initial_delay_ms": 0}}
        started = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(nodes):
                started.add_node(num_cpus=1, include_dashboard=False)
            started.wait_for_nodes()
            yield started
        finally:
            started.shutdown()
    finally:
        os.environ.clear()
        os.environ.update(before)
