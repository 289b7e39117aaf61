"""The share of a run that is neither step nor evaluation: checkpoints, metrics, results, events, views of an epoch.

    python benchmarks/overhead.py                    # a run of about a minute on one thread, into results/speed/
    python benchmarks/overhead.py --seconds 10
    python benchmarks/overhead.py --seconds 0 --images 64 --out my-results/speed

A real run is trained as a worker trains it, under a profile: what `step` and `predict` took, with all that they call, is
its work; everything else that the worker did is what the bench costs. Processor time, so that a busy machine counts little.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from speed_report import machine

from kdzoo.runs.options import WorkerOptions
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.run.planned_files import write_plan
from kdzoo.suite.run.train_runs import train_runs
from kdzoo.suite.run.worker_state import WorkerState

WORK = {("kdzoo/training/train.py", "step"), ("kdzoo/models/predict.py", "predict"), ("kdzoo/training/cost.py", "probe")}
"""whose time, with all that they call, is the run's own"""


def measure(data: str, images: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Profile one run of the student alone that lasts about so many seconds; the shares of its processor time."""
    torch.set_num_threads(1)
    epochs = 1
    while True:
        made = plan(bench_config(asked(data, images, epochs, folder / str(epochs)), None))
        write_plan(made)
        (run_id,) = [p.run.id for p in made.students if p.run.objective.label == "none"]
        profiler = cProfile.Profile(time.process_time)
        began = time.process_time()
        profiler.enable()
        train_runs(made.store, [run_id], WorkerOptions(threads=1, checkpoint_seconds=30.0), WorkerState(), lambda _: None, lambda: False)
        profiler.disable()
        took = time.process_time() - began
        if took >= seconds / 2:
            return shares(profiler, took) | {"epochs": epochs, "images": images}
        epochs = max(epochs + 1, round(epochs * seconds / took))


def asked(data: str, images: int, epochs: int, folder: Path) -> dict[str, Any]:
    return {
        "results": str(folder),
        "name": "overhead",
        "data": data,
        "pairs": "resnet56/resnet20",
        "recipe": "crd240",
        "limit": images,
        "epochs": epochs,
        "seeds": "1",
        "methods": "hinton",
        "refit": False,
    }


def shares(profiler: cProfile.Profile, took: float) -> dict[str, Any]:
    """Seconds of the run's own work, of everything else, and what of that took longest."""
    stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    work = sum(
        cumulative
        for (file, _, function), (_, _, _, cumulative, _) in stats.items()
        for owner, name in WORK
        if function == name and file.replace("\\", "/").endswith(owner)
    )
    return {"seconds": took, "work_seconds": work, "overhead_share": 1 - work / took}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar100", help="a data set of 32x32 pixels (default: %(default)s)")
    parser.add_argument("--images", type=int, default=2000, help="how many of its images an epoch has (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the run lasts, about (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), help="the folder of overhead.json (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.data, options.images, options.seconds, Path(folder))
    options.out.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine(torch.device("cpu"), 1), "data": options.data, **found}
    (options.out / "overhead.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    print(f"{found['seconds']:.1f} s of processor time, of which {found['overhead_share']:.2%} were neither step nor evaluation")


if __name__ == "__main__":
    main()
