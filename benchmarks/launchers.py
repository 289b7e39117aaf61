"""Train one small bench by each launcher and compare every weight: `local`, `print`, `slurm` and `ray`.

    python benchmarks/launchers.py                       # all four
    python benchmarks/launchers.py --launchers local,ray

The bench is four runs on the digits. Their teacher is the one that the first launcher trains: `local` trains it with the threads of
all its processes, the others with those of one worker, to other last bits. Each launcher has a cache of its own. For `print` two
`kdzoo work` are started, for `slurm` a real Slurm of two nodes on this machine (root, `apt-get install slurm-wlm munge`), for `ray`
a real Ray of two nodes. The table has the number of runs, the seconds until the command ended, a digest of all weights and the
mean top-1 on the test images. Exits with 1 where a digest differs. Some three minutes on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load_file

from kdzoo.runs.store import Store

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # the clusters that the tests start
LAUNCHERS = ("local", "print", "slurm", "ray")
WORDS = (
    *("--methods", "hinton,at,rkd", "--temperatures", "4", "--alphas", "0.5", "--data", "digits", "--pairs", "digits"),
    *("--recipe", "digits", "--seeds", "1", "--epochs", "5", "--no-refit", "--jobs", "2", "--threads", "1"),
)


@dataclass(frozen=True)
class Row:
    """What a launcher came to."""

    launcher: str
    runs: int
    seconds: float
    weights: str
    top1: float


def main() -> int:
    """Train by each launcher and print the table; 1 where weights differ."""
    parser = argparse.ArgumentParser(description="One bench by several launchers, with a digest of all weights.")
    parser.add_argument("--launchers", default=",".join(LAUNCHERS))
    names = parser.parse_args().launchers.split(",")
    if unknown := set(names) - set(LAUNCHERS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(LAUNCHERS)}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            if rows:
                shutil.copytree(Path(folder) / names[0] / "cache/teachers", Path(folder) / name / "cache/teachers")
            rows.append(row_of(name, Path(folder) / name))
            print(f"{name}: {rows[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    print("| launcher | runs | seconds | digest of all weights | mean top-1 on test |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        print(f"| `{row.launcher}` | {row.runs} | {row.seconds:.0f} | `{row.weights}` | {row.top1:.6f} |")
    return 0 if len({(row.runs, row.weights, row.top1) for row in rows}) == 1 else 1


def row_of(launcher: str, folder: Path) -> Row:
    """Train the bench by a launcher in a folder of its own."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "KDZOO_CACHE": str(folder / "cache"), "WANDB_MODE": "disabled"}
    with cluster_of(launcher, folder) as (words, more):
        began = time.monotonic()
        command = [sys.executable, "-m", "kdzoo", "bench", *WORDS, "--launcher", launcher, *words, "--results", "r", "--name", "b"]
        driver = subprocess.Popen(
            command, cwd=folder, env={**environment, **more}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        workers = [start_worker(folder, environment, driver) for _ in range(2 if launcher == "print" else 0)]
        output, _ = driver.communicate()
        seconds = time.monotonic() - began
        for worker in workers:
            worker.wait()
    if driver.returncode:
        sys.exit(f"{launcher}: status {driver.returncode}\n{output}")
    store = Store(folder / "r/b")
    tops = [store.run(run_id).result()["last"]["test"]["top1"] for run_id in store.ids()]
    return Row(launcher, len(tops), seconds, digest_of(store), sum(tops) / len(tops))


@contextlib.contextmanager
def cluster_of(launcher: str, folder: Path) -> Iterator[tuple[list[str], Mapping[str, str]]]:
    """What a launcher needs, running: further words of the command, and variables of its environment."""
    if launcher == "slurm":
        from slurm_cluster import slurm_cluster, why_not

        if reason := why_not():
            sys.exit(reason)
        with slurm_cluster(folder / "slurm") as slurm:
            yield ["--launcher-option", "timeout_min=20"], slurm.environment
    elif launcher == "ray":
        from ray_cluster import ON_LOOPBACK, ray_cluster

        with ray_cluster() as ray:
            yield ["--launcher-option", f"address={ray.address}"], {ON_LOOPBACK: "0"}
    else:
        yield [], {}


def start_worker(folder: Path, environment: Mapping[str, str], driver: subprocess.Popen[str]) -> subprocess.Popen[bytes]:
    """Start `kdzoo work` as soon as the bench has a folder for it."""
    while driver.poll() is None and not (folder / "r/b/work").exists():
        time.sleep(0.1)
    command = [sys.executable, "-m", "kdzoo", "work", str(folder / "r/b")]
    return subprocess.Popen(command, env=dict(environment), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def digest_of(store: Store) -> str:
    """A digest of every tensor of every student, by the ids of the runs and the names of the tensors."""
    digest = hashlib.sha256()
    for run_id in sorted(store.ids()):
        for name, values in sorted(load_file(store.run(run_id).student).items()):
            digest.update(f"{run_id} {name} {values.dtype} {values.shape}".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
