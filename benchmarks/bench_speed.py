"""One batch of every side of benchmarks/speed.py with pytest-benchmark, on the first pair; CIFAR-100 must be there.

    pytest --dist no benchmarks/bench_speed.py --benchmark-columns=median,iqr,rounds

A quick look while working on one side. Sides are timed one after the other here; figures to be compared come from
speed.py, which times them in turns.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from speed import PAIRS, SIDES
from speed_clock import LeftOut
from speed_setup import Setup

from kdzoo.data.known import location_of
from kdzoo.suite.plan.layers import bench_config
from kdzoo.training.run_data import load_dataset

BATCH, THREADS = 64, 1


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    if location_of("cifar100", None) is None:
        pytest.skip("CIFAR-100 is not on this machine")
    torch.set_num_threads(THREADS)
    teacher, student = PAIRS.split(",")[0].split("/")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield Setup(
            teacher,
            student,
            BATCH,
            load_dataset("cifar100", None, None),
            torch.device("cpu"),
            THREADS,
            bench_config({}, None).channels_last,
            "float32",
            tmp_path_factory.mktemp("scratch"),
        )


@pytest.mark.parametrize("name", SIDES)
def test_side(benchmark, setup, name):
    try:
        side = SIDES[name](setup)
    except LeftOut as why:
        pytest.skip(str(why))
    benchmark.pedantic(side.step, rounds=5, warmup_rounds=2)
    side.close()
