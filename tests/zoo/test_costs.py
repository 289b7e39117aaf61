"""What losses cost beside the networks' own step, by benchmarks/losses.py: multiplications, memory, and no loop over samples.

What they cost in time is claimed by benchmarks/bench_claims.py.
"""

import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from losses import LARGEST_SHARE, LAYERS_TAKE_MORE, PAIRS, losses_on, names_without_networks, own_step, peak_bytes, table, work, work_of
from losses import pair as made

from kdzoo.contract.methods import REGISTRY

CPU = torch.device("cpu")
CNNS, _ = PAIRS
MIB = 2**20


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cnns():
    return made(CNNS, CPU)


@pytest.mark.slow
def test_only_layers_that_are_published_so_multiply_more_than_a_quarter_of_the_step(cnns):
    step = work(lambda: own_step(cnns))
    shares = {name: work_of(loss) / step for name, loss in losses_on(cnns, names_without_networks()).items()}
    assert len(shares) > 50
    assert {name for name, value in shares.items() if value > LARGEST_SHARE} == LAYERS_TAKE_MORE


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("crd", 160), ("crd_queue", 90), ("nst", 130), ("rkd", 20), ("pkd", 150)])
def test_no_loss_holds_what_a_broadcast_would(cnns, name, most):
    """In MiB: crd would take 1,024 for the entries of its banks, nst 1,024 for a stage's products, rkd 64^3 differences of 256."""
    assert peak_bytes(losses_on(cnns, [name])[name], CPU) < most * MIB


class Counted(TorchDispatchMode):
    """The operations of a block, and which of them wait for the device to say a number."""

    def __init__(self):
        super().__init__()
        self.operations, self.waits = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations += 1
        self.waits += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def small_pairs():
    return [made("resnet14/resnet8", CPU, batch=batch) for batch in (5, 9)]


@pytest.mark.parametrize("name", REGISTRY.names())
def test_a_loss_is_as_many_operations_for_any_batch_and_never_waits_for_the_device(small_pairs, name):
    counts = []
    for pair in small_pairs:
        losses = losses_on(pair, [name])
        if not losses:
            pytest.skip("refused on these networks")
        losses[name].prepare()
        with Counted() as counted:
            losses[name].run()
        counts.append(counted.operations)
        assert counted.waits == 0
    assert counts[0] == counts[1]


def test_the_table_has_a_row_for_a_method_and_a_reason_for_one_that_is_refused(small_pairs):
    found = table(small_pairs[0], ["hinton", "fitnet", "deit_hard"], rounds=1)
    assert [row["method"] for row in found["rows"]] == ["hinton", "fitnet"]
    assert found["refused"] == {"deit_hard": "reads a distillation token"}
    hint = found["rows"][1]
    channels, cells = 32, 16 * 16  # the middle stage
    assert hint["extra_parameters"] == channels * channels + 2 * channels
    assert hint["share"] * found["step_milliseconds"] == pytest.approx(hint["milliseconds"], rel=1e-6)
    # a 1x1 convolution forward, and backward for its input and its weights
    assert hint["work"] * work(lambda: own_step(small_pairs[0])) == pytest.approx(3 * 5 * cells * channels**2)
    assert hint["peak_bytes"] > 4 * 5 * channels * cells
