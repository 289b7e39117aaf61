"""Time of every method's loss, forward and backward, with pytest-benchmark, beside the networks' own step.

    pytest --dist no benchmarks/bench_losses.py --benchmark-columns=median,iqr,rounds

The same measurements as one table: python benchmarks/losses.py
"""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from losses import PAIRS, loss_of, own_step, peak_bytes
from losses import pair as made

from kdzoo.contract.methods import REGISTRY
from kdzoo.errors import InputError


@pytest.fixture(scope="module", params=list(PAIRS))
def pair(request):
    torch.set_num_threads(1)
    return made(request.param, torch.device("cpu"))


def test_networks(benchmark, pair):
    benchmark.pedantic(lambda: own_step(pair), rounds=5, warmup_rounds=1)


@pytest.mark.parametrize("name", REGISTRY.names())
def test_loss(benchmark, pair, name):
    try:
        loss = loss_of(REGISTRY.get(name)(), pair)
        peak_bytes(loss, pair.images.device)  # some refuse when they are run
    except InputError as error:
        pytest.skip(str(error))
    benchmark.pedantic(loss.run, setup=loss.prepare, rounds=5, warmup_rounds=1)
