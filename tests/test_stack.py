"""A stack of students does what the students do one by one."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from turns import part_of

from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.models.build import build_network
from kdzoo.models.known import own_networks
from kdzoo.models.network import Network
from kdzoo.runs.spec import NetworkSpec
from kdzoo.training.stacked import Stack, stack_of

READ = Need.LOGITS | Need.EMBEDDING | Need.STAGES
TARGETS = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7])


class Exact(Network):
    """A network in float64, in which two orders of summation do not part."""

    def normalise(self, images: Tensor) -> Tensor:
        return (images.double() / 255 - self.mean) / self.std


def students(name: str, count: int = 3) -> list[Network]:
    return [student(name, 3, 32, seed) for seed in range(count)]


def student(name: str, channels: int, side: int, seed: int) -> Network:
    spec = NetworkSpec(name=name, classes=10)
    network = build_network(spec, channels=channels, side=side, mean=(0.5,) * channels, std=(0.25,) * channels, seed=seed)
    network.__class__ = Exact
    return network.double()


def two_and_a_small_batch(name: str) -> tuple[list[Network], Tensor]:
    """Two students of one of kdzoo's own networks, and four images for them."""
    channels, side, _ = own_networks()[name].input
    side = min(side, 16)
    first = student(name, channels, side, 0)
    second = copy.deepcopy(first)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.mul_(0.9)
    return [first, second], images(4, channels, side)


def images(batch: int = 8, channels: int = 3, side: int = 32) -> Tensor:
    return torch.randint(0, 256, (batch, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def loss(given: Outputs) -> Tensor:
    of_scores = F.cross_entropy(given.logits, TARGETS[: len(given.logits)])
    return of_scores + given.embedding.square().mean() + sum(s.abs().mean() for s in given.stages)


def optimisers(networks: list[Network]) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD(n.parameters(), lr=0.01, momentum=0.9, nesterov=True, fused=True) for n in networks]


def one_by_one(networks: list[Network], given: Tensor, steps: int) -> None:
    for network, optimiser in zip(networks, optimisers(networks), strict=True):
        network.train()
        for _ in range(steps):
            loss(network(given, READ)).backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)


def together(networks: list[Network], given: Tensor, steps: int) -> None:
    stack, each = Stack(networks), optimisers(networks)
    for _ in range(steps):
        torch.stack([loss(outputs) for outputs in stack.forward(given, READ)]).sum().backward()
        stack.share_gradients()
        for optimiser in each:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", ["resnet8", "test_vit"])
def test_parameters_and_statistics_after_steps_are_those_of_students_trained_one_by_one(name):
    alone = students(name)
    stacked = copy.deepcopy(alone)
    one_by_one(alone, images(), steps=2)
    together(stacked, images(), steps=2)
    for one, other in zip(alone, stacked, strict=True):
        for (key, expected), found in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
            assert torch.allclose(expected, found, rtol=1e-6, atol=1e-7), key


Values = dict[str, Tensor]
"""a student's gradients and its batch norms' statistics after a backward, by name"""


def values_of(network: Network) -> Values:
    gradients = {name: value.grad.clone() for name, value in network.named_parameters() if value.grad is not None}
    network.zero_grad()
    return {**gradients, **{name: value.double() for name, value in network.named_buffers()}}


def values_one_by_one(networks: list[Network], given: Tensor) -> list[Values]:
    """What a backward of each student leaves in it; the students are as before."""
    found = []
    for network in networks:
        before = {name: value.clone() for name, value in network.named_buffers()}
        loss(network.train()(given, READ)).backward()
        found.append({name: value.clone() for name, value in values_of(network).items()})
        network.load_state_dict(before, strict=False)
    return found


def values_together(networks: list[Network], given: Tensor) -> list[Values]:
    """What one backward of all leaves in each."""
    stack = Stack(networks)
    torch.stack([loss(outputs) for outputs in stack.forward(given, READ)]).sum().backward()
    stack.share_gradients()
    return [values_of(network) for network in networks]


def assert_equal(found: list[Values], expected: list[Values]) -> None:
    for one, other in zip(found, expected, strict=True):
        largest = max(float(value.abs().max()) for value in other.values())
        assert one.keys() == other.keys()
        for name, value in other.items():
            assert torch.allclose(one[name], value, rtol=1e-6, atol=1e-9 * largest), name


LARGE = [name for name, known in own_networks().items() if known.parameters > 5_000_000]
TRIED = sorted({*own_networks()} - {*LARGE} | {*part_of(LARGE, len(LARGE))})
"""the networks that are stacked at this commit: of the large ones, one"""


@pytest.mark.parametrize("name", TRIED)
def test_gradients_and_statistics_of_every_network_of_kdzoos_own_are_those_one_by_one(name):
    networks, given = two_and_a_small_batch(name)
    expected = values_one_by_one(networks, given)
    assert_equal(values_together(networks, given), expected)


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv2_half"])
def test_students_whose_weights_lie_channels_last_have_the_same_values(name):
    networks, given = two_and_a_small_batch(name)
    expected = values_one_by_one(networks, given)
    for network in networks:
        network.to(memory_format=torch.channels_last)
    assert not next(p for p in networks[0].parameters() if p.dim() == 4 and p.shape[2] > 1).is_contiguous()
    assert_equal(values_together(networks, given), expected)


@pytest.mark.parametrize("name", ["resnet8", "digits_deit"])
def test_in_bfloat16_a_stack_is_as_near_to_float32_as_students_one_by_one(name):
    networks, given = two_and_a_small_batch(name)
    for network in networks:
        network.float().train().__class__ = Network
    exact = [network(given, Need.LOGITS).logits for network in networks]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        alone = [network(given, Need.LOGITS).logits.float() for network in networks]
        together = [outputs.logits.float() for outputs in Stack(networks).forward(given, Need.LOGITS)]
    for one, other, reference in zip(together, alone, exact, strict=True):
        assert 0 < (one - reference).norm() < 2 * (other - reference).norm()
        assert (one - other).norm() < 0.05 * reference.norm()


def test_what_is_done_to_a_student_is_done_to_its_part_of_the_stack():
    networks = students("resnet20", count=2)
    stack = Stack(networks)
    fresh = students("resnet20", count=3)[2]
    networks[1].load_state_dict(fresh.state_dict())
    first, second = stack.forward(images(), Need.LOGITS)
    fresh.train()
    assert torch.allclose(second.logits, fresh(images(), Need.LOGITS).logits)
    assert not torch.allclose(first.logits, second.logits)


def test_a_student_whose_loss_is_no_number_leaves_the_others_gradients_alone():
    networks = students("resnet20", count=3)
    stack = Stack(networks)
    losses = [loss(given) for given in stack.forward(images(), READ)]
    (losses[0] + losses[1] * float("nan") + losses[2]).backward()
    stack.share_gradients()
    finite = [all(bool(p.grad.isfinite().all()) for p in n.parameters() if p.grad is not None) for n in networks]
    assert finite == [True, False, True]


def test_an_architecture_that_cannot_be_batched_is_told_and_left_as_it_was():
    class ByValue(nn.Module):
        """Decides by a value, which one computation for all cannot."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3 * 32 * 32, 10)

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.layer(x.flatten(1))
            return scores if scores.sum().item() < 0 else -scores

    networks = [Network(ByValue(), channels=3, mean=(0.5,) * 3, std=(0.25,) * 3) for _ in range(2)]
    before = copy.deepcopy(networks)
    told = stack_of(networks, images(), Need.LOGITS)
    assert isinstance(told, str)
    assert "one at a time" in told
    for network, was in zip(networks, before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), was.parameters(), strict=True))
