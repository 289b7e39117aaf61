"""A stack of students does what the students do one by one."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.models.build import build_network
from kdzoo.models.network import Network
from kdzoo.runs.spec import NetworkSpec
from kdzoo.training.stacked import Stack, stack_of

READ = Need.LOGITS | Need.EMBEDDING | Need.STAGES
TARGETS = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7])


class Exact(Network):
    """A network in float64, in which two orders of summation do not part."""

    def normalise(self, images: Tensor) -> Tensor:
        return (images.double() / 255 - self.mean) / self.std


def students(name: str, count: int = 3, side: int = 32) -> list[Network]:
    made = []
    for seed in range(count):
        spec = NetworkSpec(name=name, classes=10)
        network = build_network(spec, channels=3, side=side, mean=(0.5,) * 3, std=(0.25,) * 3, seed=seed)
        network.__class__ = Exact
        made.append(network.double())
    return made


def images(side: int = 32) -> Tensor:
    return torch.randint(0, 256, (8, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def loss(given: Outputs) -> Tensor:
    return F.cross_entropy(given.logits, TARGETS) + given.embedding.square().mean() + sum(s.abs().mean() for s in given.stages)


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "vgg8", "wrn_16_2", "shufflenetv1", "mobilenetv2_half", "test_vit"])
def test_parameters_and_statistics_after_steps_are_those_of_students_trained_one_by_one(name):
    alone = students(name)
    stacked = copy.deepcopy(alone)
    one_by_one(alone, images(), steps=2)
    together(stacked, images(), steps=2)
    for one, other in zip(alone, stacked, strict=True):
        for (key, expected), found in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
            assert torch.allclose(expected, found, rtol=1e-6, atol=1e-7), key


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
