"""What losses cost beside the networks' own step, by benchmarks/losses.py: time, multiplications, memory, and no loop over samples."""

import random
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from losses import LARGEST_SHARE, PAIRS, loss_of, measured, own_step, peak_bytes, runs_network, share, table, work, work_of
from losses import pair as made

from kdzoo.contract.methods import REGISTRY
from kdzoo.errors import InputError

CPU = torch.device("cpu")
CNNS, VITS = PAIRS
LAYERS_TAKE_MORE = {"reviewkd", "semckd"}
"""whose published layers alone take more than LARGEST_SHARE of the step's multiplications"""
SAMPLED, SEED = 8, 0
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


def losses_on(pair, names):
    """The losses of those methods that can serve the pair, by name."""
    found = {}
    for name in names:
        try:
            found[name] = loss_of(REGISTRY.get(name)(), pair)
        except InputError:
            continue
    return found


def alone(names):
    """The methods that run no network themselves."""
    return [name for name in names if not runs_network(REGISTRY.get(name)())]


def too_dear(pair, losses):
    """Losses that cost more than LARGEST_SHARE in each of three measurements, with the least found: noise does not come thrice."""
    least: dict[str, float] = {}
    left = dict(losses)
    for _ in range(3):
        steps, spent = measured(pair, list(left.values()), rounds=3)
        for name, seconds in zip(left, spent, strict=True):
            least[name] = min(least.get(name, float("inf")), share(steps, seconds))
        left = {name: loss for name, loss in left.items() if least[name] > LARGEST_SHARE}
        if not left:
            break
    return {name: least[name] for name in left}


@pytest.mark.slow
def test_only_layers_that_are_published_so_multiply_more_than_a_quarter_of_the_step(cnns):
    step = work(lambda: own_step(cnns))
    shares = {name: work_of(loss) / step for name, loss in losses_on(cnns, alone(REGISTRY.names())).items()}
    assert len(shares) > 50
    assert {name for name, value in shares.items() if value > LARGEST_SHARE} == LAYERS_TAKE_MORE


@pytest.mark.slow
def test_no_loss_costs_more_than_a_quarter_of_a_cnns_step(cnns):
    """Processor time of this process, in ratio to the step's in the same round, so that a busy machine changes little."""
    losses = losses_on(cnns, [name for name in alone(REGISTRY.names()) if name not in LAYERS_TAKE_MORE])
    assert too_dear(cnns, losses) == {}


@pytest.mark.slow
def test_nor_of_a_vits_by_a_sample_of_them():
    """On one stage of 8x8 cells all are cheap, those with layers too."""
    names = random.Random(SEED).sample([name for name in alone(REGISTRY.names()) if name not in LAYERS_TAKE_MORE], SAMPLED)
    pair = made(VITS, CPU)
    assert too_dear(pair, losses_on(pair, names)) == {}


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
