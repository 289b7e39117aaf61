"""Processes of torchrun on two machines, each with a network of its own: namespaces of Linux that a pair of veth devices joins."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
BENCH = "bench --data digits --methods hinton,rkd --temperatures 4 --seeds 1 --no-refit --keep student --threads 1 --epochs 1"
ADDRESSES = ("10.213.77.1", "10.213.77.2")
PORT = 29400


def ip(*words: str) -> None:
    """Run iproute2; skips the test where this user, kernel or sandbox does not let it make what it is asked for."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no networks of one's own here: ip {' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture
def networks() -> Iterator[tuple[str, str]]:
    """Two network namespaces that reach each other over a pair of veth devices and nothing else."""
    if shutil.which("ip") is None:
        pytest.skip("no networks of one's own here: iproute2 is not installed")
    names = (f"kdzoo-{os.getpid()}-a", f"kdzoo-{os.getpid()}-b")
    made: list[str] = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip("-n", names[0], "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "veth0")
            for device in ("lo", "veth0"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], check=True)


def start(network: str, rank: int, place: Path) -> subprocess.Popen[str]:
    """Start the torchrun of one machine in its network, with one process, in a process group of its own."""
    meeting = ["--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}", "--rdzv-backend=c10d", f"--rdzv-endpoint={ADDRESSES[0]}:{PORT}"]
    words = f"{BENCH} --results shared --launcher torchrun --processes-per-run 2".split()
    here = ["--local-addr", ADDRESSES[rank], "--rdzv-conf", f"is_host={int(rank == 0)}"]  # names of machines lead nowhere in these networks
    command = [sys.executable, "-m", "torch.distributed.run", *meeting, *here, "-m", "kdzoo", *words]
    environment = {**os.environ, "KDZOO_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "veth0"}
    return subprocess.Popen(
        ["ip", "netns", "exec", network, *command],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def bytes_received(network: str) -> int:
    counter = "/sys/class/net/veth0/statistics/rx_bytes"
    return int(subprocess.run(["ip", "netns", "exec", network, "cat", counter], capture_output=True, text=True, check=True).stdout)


def students(results: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {file.parent.name: load_file(file) for file in results.glob("digits/runs/*/student.safetensors")}


def test_two_machines_on_a_network_come_to_the_bits_of_two_processes_of_one(networks, place, kdzoo):
    """With addresses of their own, and no loopback between them; what they exchange is counted where it arrives."""
    local = kdzoo(*f"{BENCH} --results local --processes-per-run 2".split())
    assert local.status == 0, local.err
    machines = [start(network, rank, place) for rank, network in enumerate(networks)]
    try:
        told = [machine.communicate(timeout=300)[0] for machine in machines]
    except subprocess.TimeoutExpired:
        for machine in machines:
            os.killpg(machine.pid, signal.SIGKILL)
        raise
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(told)
    of_one_machine, of_two = students(place / "local"), students(place / "shared")
    assert of_one_machine.keys() == of_two.keys()
    assert len(of_two) == 3
    for run_id, weights in of_two.items():
        assert all(torch.equal(value, of_one_machine[run_id][name]) for name, value in weights.items()), run_id
    steps, gradients = 3 * 18, sum(value.numel() * 4 for value in of_two[next(iter(of_two))].values())
    for network in networks:
        assert bytes_received(network) > steps * gradients / 2, "every step's gradients have crossed the network"
