"""What a store of many finished runs costs: processor seconds and memory of planning, resuming, status, tables and a report.

    python benchmarks/many_runs.py                                   # 1,500 runs written for it, in a folder that is removed
    python benchmarks/many_runs.py --runs 15000 --folder /tmp/many   # kept, so that another checkout can measure the same runs
    python benchmarks/many_runs.py --runs 15000 --folder /tmp/many --verbs status,leaderboard

A bench of plain KD on the digits is planned as `kdzoo bench` plans it, many temperatures on many seeds, and every planned run is
given a result by the classes that training writes with. The commands then run in processes of their own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdzoo.runs.metrics_file import JsonLines
from kdzoo.runs.results import result_model
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.planned import PlannedRun
from kdzoo.suite.plan.sweep import plan
from kdzoo.tasks.classification import CLASSIFICATION

SEEDS = 50
BENCH = "many"


def words_of(runs: int, results: Path) -> dict[str, str | int]:
    """The options of a bench of about so many runs."""
    temperatures = ",".join(f"{1 + number / 100:g}" for number in range(max(runs // SEEDS - 1, 1)))
    return {
        "methods": "hinton",
        "temperatures": temperatures,
        "alphas": "0.5",
        "seeds": SEEDS,
        "epochs": 1,
        "results": str(results),
        "name": BENCH,
    }


def write_runs(words: dict[str, str | int]) -> int:
    """Plan a bench and give every run of it a result; how many there are."""
    planned = plan(bench_config(dict(words), None))
    for number, one in enumerate(planned.students):
        folder = planned.store.run(one.run.id)
        folder.plan(one.run, one.about)
        result = result_of(one, 0.8 + (37 * number + 11 * one.run.seed) % 100 / 1000)
        log = JsonLines(folder.metrics, folder.id, keep_through_step=0)
        log.epoch({"epoch": 1, "step": 18, "loss": 0.5, "parts": {"ce": 0.5}, "lr": 0.1, "val": result["last"]["val"], "seconds": 1.0})
        log.close()
        folder.finish(result)
    return len(planned.students)


def result_of(one: PlannedRun, accuracy: float) -> dict[str, Any]:
    """A whole result with this accuracy."""
    top1 = {"top1": accuracy, "top5": None, "balanced": accuracy, "nll": 1 - accuracy, "ece": 0.02, "n": 288, "agreement": 0.9}
    metrics = {**top1, "teacher_kl": 0.1}
    network = {"name": one.run.student.name, "parameters": 1000, "macs": 1000}
    result = {
        "id": one.run.id,
        "status": "done",
        "last": {"epoch": 1, "val": metrics, "test": metrics},
        "best": {"epoch": 1, "val": metrics, "test": metrics},
        "oracle": None,
        "train": {"loss": 0.5, "steps": 18, "samples": 1150},
        "teacher": {**network, "val": metrics, "test": metrics} if one.run.teacher else None,
        "student": network,
        "cost": {
            "step_seconds": 0.01,
            "train_seconds": 1.0,
            "memory_bytes": 1000,
            "extra_parameters": 0,
            "views": 1,
            "student_passes": 1,
            "teacher_passes": 1,
        },
        "teacher_cache": None,
        "environment": {"kdzoo": "0", "python": "3", "torch": "2", "timm": "1", "device": "cpu", "threads": 1, "git": None},
        "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T00:00:01Z",
        "seconds": 1.0,
    }
    return result_model(CLASSIFICATION).model_validate(result).model_dump(mode="json", by_alias=True)


MEASURED = """
import os, subprocess, sys
process = subprocess.Popen([sys.executable, "-m", "kdzoo", *sys.argv[1:]], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""measures a command in a process that is small itself: a command's memory counts from that of the process that started it"""


def measure(command: Sequence[str]) -> tuple[float, float]:
    """Processor seconds and the largest memory, in MB, of a command and the processes that it starts; raises where it fails."""
    done = subprocess.run([sys.executable, "-c", MEASURED, *command], stdout=subprocess.PIPE, text=True, check=True)
    seconds, memory = map(float, done.stdout.split())
    return seconds, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1500, help="about so many runs (default 1500)")
    parser.add_argument("--folder", type=Path, help="where the results are kept; written only where they are not there")
    parser.add_argument("--verbs", help="which of plan,resume,status,leaderboard,compare,report to measure (default all)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        results = (options.folder or Path(scratch)).absolute()
        words = words_of(options.runs, results)
        if not (results / BENCH).exists():
            began = time.process_time()
            count = write_runs(words)
            print(f"{count:,} runs written in {time.process_time() - began:.1f} s of processor time", flush=True)
        bench = ["bench", *(part for name, value in words.items() for part in (f"--{name}", str(value))), "--launcher", "here"]
        folder = str(results / BENCH)
        commands = {
            "plan": [*bench, "--dry-run"],
            "resume": bench,
            "status": ["status", folder],
            "leaderboard": ["leaderboard", folder],
            "compare": ["compare", folder, folder],
            "report": ["report", folder, "-o", f"{scratch}/report.html"],
        }
        print("| command | processor seconds | MB |\n| --- | --- | --- |")
        for verb in options.verbs.split(",") if options.verbs else commands:
            seconds, memory = measure(commands[verb])
            print(f"| {verb} | {seconds:.1f} | {memory:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
