"""How far the estimates of `kdzoo bench --dry-run` are from the truth, on three small benches whose doses are measured.

    OMP_NUM_THREADS=1 python benchmarks/estimates.py --data-root FOLDER
    OMP_NUM_THREADS=1 python benchmarks/estimates.py --quick            # does it run?

Each bench is estimated twice: from a probe, with an empty record of costs, and from what its runs have cost, for other seeds.
The truth is the processor time of the worker process, start included; one process of one thread. A few minutes on one core.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from pathlib import Path
from typing import Any

from kdzoo.suite.run.bench import run
from kdzoo.suite.run.estimate import estimate
from kdzoo.suite.run.launchers import create_launcher
from kdzoo.suite.run.launchers.launcher import LauncherSetup
from kdzoo.suite.run.prepare import configure, prepare

SMALL = {"jobs": 1, "threads": 1, "refit": False, "keep": [], "allow_chance_teacher": True}
BENCHES: dict[str, dict[str, Any]] = {
    "digits": {"methods": ["hinton", "at", "crd"], "data": "digits", "pairs": ["digits"], "doses": [0.1, 1], "epochs": 4},
    "mnist": {
        "methods": ["hinton", "dkd"],
        "doses": [0.3],
        "data": "mnist",
        "teacher": "mlp_784_400_400",
        "student": "mlp_784_100",
        "limit": 3000,
        "epochs": 3,
        "recipe": "smoke",
    },
    "cifar100": {
        "methods": ["hinton", "crd"],
        "doses": [0.3],
        "data": "cifar100",
        "pairs": ["resnet14/resnet8"],
        "limit": 500,
        "epochs": 1,
        "recipe": "crd240",
        "val_fraction": 0.2,
    },
}
QUICK: dict[str, dict[str, Any]] = {
    "digits": {**BENCHES["digits"], "methods": ["hinton"], "doses": [0.1], "limit": 200, "epochs": 1, "set": {"teacher_recipe.epochs": 1}}
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", help="the folder of the data sets")
    parser.add_argument("--quick", action="store_true", help="the digits alone, with one method for one epoch: does it run?")
    parser.add_argument("benches", nargs="*", help=", ".join(BENCHES))
    arguments = parser.parse_args()
    benches = QUICK if arguments.quick else {name: BENCHES[name] for name in arguments.benches or BENCHES}
    with tempfile.TemporaryDirectory(prefix="kdzoo-estimates-") as place:
        os.environ["KDZOO_CACHE"] = f"{place}/cache"
        for name, bench in benches.items():
            for source, seeds in (("probe", [0]), ("record", [1])):
                root = None if name == "digits" else arguments.data_root
                options = {**SMALL, **bench, "name": f"{name}-{source}", "seeds": seeds, "data_root": root, "results": place}
                seconds, truth = measure(options, Path(place))
                print(
                    f"{name:9} from the {source:6}: estimate {seconds:6.1f} s, truth {truth:6.1f} s, ratio {seconds / truth:.2f}",
                    flush=True,
                )


def measure(options: dict[str, Any], place: Path) -> tuple[float, float]:
    """The estimate of a bench and, once it has run, the processor time of its workers."""
    prepared = prepare(configure(options))
    seconds, before = estimate(prepared), _of_workers()
    with create_launcher(LauncherSetup(place / "logs", (), "cpu")) as launcher:
        run(prepared, launcher, lambda event: None, retry_failed=False)
    return seconds, _of_workers() - before


def _of_workers() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
