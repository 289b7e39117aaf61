"""One process of `speed.py --quick BASE`: every side made with the code of one checkout, and timed round by round as it is asked.

speed_side.py CHECKOUT PAIR BATCH SIDE...        then lines `SIDE STEPS`; each is answered by milliseconds of processor time a step
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

SOURCE = sys.argv[1]
sys.path[:1] = [SOURCE, f"{SOURCE}/benchmarks"]  # in the place of this file's own folder
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import speed_kdzoo as sides  # noqa: E402
import torch  # noqa: E402
from speed_setup import Setup  # noqa: E402

import kdzoo  # noqa: E402
from kdzoo.training.run_data import load_dataset  # noqa: E402

RUNS = 3
"""of a sweep"""


def main(pair: str, batch: int, names: list[str]) -> None:
    assert Path(kdzoo.__file__).is_relative_to(SOURCE), kdzoo.__file__
    torch.set_num_threads(1)
    teacher, _, student = pair.partition("/")
    with tempfile.TemporaryDirectory() as scratch:
        images = load_dataset("cifar100", os.environ["KDZOO_DATA"], None)
        setup = Setup(teacher, student, batch, images, torch.device("cpu"), 1, None, "float32", Path(scratch))
        makes = {
            "student": lambda: sides.live(setup, 0),
            "kdzoo": lambda: sides.live(setup, 1),
            "kdzoo_sweep": lambda: sides.live(setup, RUNS),
            "kdzoo_warm": lambda: sides.warm(setup, RUNS),
        }
        made = {name: makes[name]() for name in names}
        for line in sys.stdin:
            name, steps = line.split()
            began = time.process_time()
            for _ in range(int(steps)):
                made[name].step()
            print(1000 * (time.process_time() - began) / int(steps), flush=True)


if __name__ == "__main__":
    main(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
