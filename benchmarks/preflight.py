"""What planning and preflight of a bench with every method cost, in processor seconds.

    python benchmarks/preflight.py                    # on CIFAR-100 (KDZOO_DATA, see kdzoo data)
    python benchmarks/preflight.py --data digits --pair digits --methods hinton,at

Two settings of each method that images and the pair can serve, with validation images held out: over a hundred objectives that
share their data and networks. The images are read before, and nothing is trained or written.
"""

from __future__ import annotations

import argparse
import time

import torch

from kdzoo.contract.methods import REGISTRY
from kdzoo.contract.needs import Need
from kdzoo.suite.plan.bench_data import read_images
from kdzoo.suite.plan.layers import bench_config
from kdzoo.suite.plan.sweep import plan
from kdzoo.suite.run.preflight import preflight
from kdzoo.suite.run.untrained import Untrained
from kdzoo.training.located import Modules


def names_without_tokens() -> list[str]:
    """The methods for images that read no distillation token, which convolutional networks do not have."""
    return [name for name in REGISTRY.names_for_images() if Need.DISTILLED not in REGISTRY.get(name).card.needs.student]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cifar100", help="a data set (default: %(default)s)")
    parser.add_argument("--data-root", help="the folder of the data sets")
    parser.add_argument("--pair", default="resnet56/resnet20", help="TEACHER/STUDENT, or the name of a pair (default: %(default)s)")
    parser.add_argument("--methods", help="names, joined with commas (default: all for images that read no distillation token)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = bench_config(
        {
            "methods": options.methods or names_without_tokens(),
            "pairs": [options.pair],
            "data": options.data,
            "data_root": options.data_root,
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
    preflight(planned, Untrained(Modules()))
    ended = time.process_time()
    objectives = {str(one.run.objective) for one in planned.students}
    print(
        f"{len(objectives)} objectives: plan {between - began:.2f} s and preflight {ended - between:.2f} s, "
        f"together {ended - began:.2f} s of processor time"
    )


if __name__ == "__main__":
    main()
