"""Collaborative learning, against the ensemble and the divergence in loops over networks, samples and classes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drawn import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.methods import create_method
from kdzoo.contract.needs import Need
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.functional import kdcl
from kdzoo.methods.kdcl import min_logit

FACTS = DataFacts(10, 3, torch.arange(10) % 3)


class Peer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images.flatten(1).float() / 255)


def batch_of(size: int) -> Batch:
    return Batch(
        inputs=torch.randint(0, 256, (size, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        targets=torch.arange(size) % 3,
        index=torch.arange(size),
        clock=Progress(0, 1, 0, 1),
        generator=torch.Generator().manual_seed(0),
    )


def softened(row: list[float], temperature: float) -> list[float]:
    top = max(row)
    powers = [math.exp((value - top) / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def oracle(learner: np.ndarray, networks: list[np.ndarray], targets: list[int], temperature: float) -> float:
    total = 0.0
    for i, target in enumerate(targets):
        ensemble = [min(z[i, k] - z[i, target] for z in networks) for k in range(learner.shape[1])]
        p, q = softened(ensemble, temperature), softened(list(learner[i]), temperature)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(targets)


@settings(max_examples=20)
@given(
    batch=st.integers(1, 4),
    classes=st.integers(2, 5),
    peers=st.integers(1, 3),
    temperature=st.floats(0.5, 8),
    seed=st.integers(0, 1000),
)
def test_it_is_the_divergence_from_the_strictest_of_the_networks(batch, classes, peers, temperature, seed):
    networks = [drawn(batch, classes, seed=seed + i, factor=2) for i in range(peers + 1)]
    targets = torch.arange(batch) % classes
    expected = oracle(networks[0].numpy(), [z.numpy() for z in networks], targets.tolist(), temperature)
    assert kdcl(networks[0], networks, targets, temperature=temperature).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), networks=st.integers(1, 4))
def test_no_network_is_surer_of_the_labels_than_the_ensemble(seed, networks):
    """The ensemble's cross-entropy is at most that of each of its networks."""
    logits, targets = [drawn(6, 4, seed=seed + i, factor=3) for i in range(networks)], torch.arange(6) % 4
    hardest = F.cross_entropy(min_logit(logits, targets), targets, reduction="none")
    for z in logits:
        assert (hardest <= F.cross_entropy(z, targets, reduction="none") + 1e-12).all()


def test_a_network_alone_has_nothing_to_learn():
    z = drawn(4, 3)
    assert kdcl(z, [z], torch.tensor([0, 1, 2, 0]), temperature=2.0).item() == pytest.approx(0, abs=1e-12)


def test_only_the_learner_gets_a_gradient_and_not_through_the_ensemble():
    z, other = drawn(4, 3).requires_grad_(), drawn(4, 3, seed=1).requires_grad_()
    targets = torch.tensor([0, 1, 2, 0])
    kdcl(z, [z, other], targets, temperature=2.0).backward()
    soft = min_logit([z, other], targets)
    assert torch.allclose(z.grad, 2.0 * ((z / 2).softmax(1) - (soft / 2).softmax(1)).detach() / 4)
    assert other.grad is None


def test_logits_of_ten_thousand_give_numbers():
    z, other = drawn(4, 5, factor=1e4).requires_grad_(), drawn(4, 5, seed=1, factor=1e4)
    loss = kdcl(z, [z, other], torch.tensor([0, 1, 2, 3]), temperature=2.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("peers", [1, 2])
def test_each_peer_learns_the_labels_and_from_the_same_ensemble(peers):
    method = create_method("kdcl", peers=peers)
    module = method.build(Shapes(3, 4, (), fresh=Peer), Shapes(3, 4, ()), FACTS)
    batch, logits = batch_of(5), drawn(5, 3).requires_grad_()
    said = [network(batch.inputs).detach().double() for network in module]
    networks = [z.numpy() for z in (logits.detach(), *said)]
    found = method.loss(Outputs.of({Need.LOGITS: logits}, owner="student"), Outputs(owner="teacher"), batch, module)
    targets = batch.targets.tolist()
    expected = sum(F.cross_entropy(z, batch.targets).item() + oracle(z.numpy(), networks, targets, 2.0) for z in said)
    assert found.loss.item() == pytest.approx(oracle(networks[0], networks, targets, 2.0), rel=1e-5)
    assert found.auxiliary.item() == pytest.approx(expected, rel=1e-5)
    assert torch.autograd.grad(found.auxiliary, logits, allow_unused=True, retain_graph=True) == (None,)
    assert all(g.any() for g in torch.autograd.grad(found.auxiliary, list(module.parameters()), retain_graph=True))
    assert all(g is None for g in torch.autograd.grad(found.loss, list(module.parameters()), allow_unused=True))


def test_without_a_maker_of_networks_it_is_refused():
    with pytest.raises(InputError, match="trains a second network of the student's architecture"):
        create_method("kdcl").build(Shapes(3, 4, ()), Shapes(3, 4, ()), FACTS)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(InputError, match=r"kdcl\.temperature: expected a number > 0, got 0"):
        create_method("kdcl", temperature=0.0)
