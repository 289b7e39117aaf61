"""What planning and preflight of a bench with every method cost, in processor seconds.

    OMP_NUM_THREADS=1 python benchmarks/preflight.py --data cifar100 --data-root FOLDER

Two settings of each method for resnet56 and resnet20, with validation images held out: over a hundred objectives that share
their data and networks. Nothing is trained or written.
"""

from __future__ import annotations

import argparse
import time

import torch

from kdzoo.contract.methods import REGISTRY
from kdzoo.suite.plan.bench_data import read_images
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.run.preflight import preflight
from kdzoo.training.located import Modules

NEEDS_TOKENS = ("deit_hard", "deit_soft")
"""methods that these networks cannot serve"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar100")
    parser.add_argument("--data-root")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    methods = [name for name in sorted(REGISTRY) if name not in NEEDS_TOKENS]
    config = bench_config(
        {
            "methods": methods,
            "pairs": ["resnet56/resnet20"],
            "data": arguments.data,
            "data_root": arguments.data_root,
            "recipe": "crd240",
            "val_fraction": 0.1,
            "tune": 2,
            "seeds": [0],
        },
        None,
    )
    read_images(config, None)
    began = time.process_time()
    planned = plan(config)
    between = time.process_time()
    preflight(planned, Modules())
    objectives = {str(one.run.objective) for one in planned.students}
    print(f"{len(objectives)} objectives: plan {between - began:.1f} s, preflight {time.process_time() - between:.1f} s of processor time")


if __name__ == "__main__":
    main()
