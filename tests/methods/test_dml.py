"""Mutual learning, against the divergence written out over samples and classes, and peers that really learn."""

import math

import numpy as np
import pytest
import torch
from drawn import drawn, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.methods import create_method
from kdzoo.contract.needs import Need
from kdzoo.contract.objective import Objective, Term
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.functional import dml

FACTS = DataFacts(10, 3, torch.arange(10) % 3)


def peer() -> nn.Module:
    """A network on images of 2x2 pixels with three classes, which drops some of what it sees while it learns."""
    return nn.Sequential(nn.Flatten(), Scaled(), nn.Dropout(0.3), nn.Linear(4, 3))


class Scaled(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float() / 255


def batch_of(size: int, seed: int = 0) -> Batch:
    random = torch.Generator().manual_seed(seed)
    return Batch(
        inputs=torch.randint(0, 256, (size, 1, 2, 2), dtype=torch.uint8, generator=random),
        targets=torch.arange(size) % 3,
        index=torch.arange(size),
        clock=Progress(0, 1, 0, 1),
        generator=torch.Generator().manual_seed(seed),
    )


def softmax(row: np.ndarray) -> list[float]:
    top = max(row)
    powers = [math.exp(value - top) for value in row]
    return [power / sum(powers) for power in powers]


def divergence(of: np.ndarray, to: np.ndarray) -> float:
    """Mean over the rows of sum_k p_k log(p_k / q_k), p from `of` and q from `to`."""
    rows = [sum(p * math.log(p / q) for p, q in zip(softmax(a), softmax(b), strict=True)) for a, b in zip(of, to, strict=True)]
    return sum(rows) / len(rows)


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    return -sum(math.log(softmax(row)[target]) for row, target in zip(logits, targets, strict=True)) / len(logits)


def student_of(logits: torch.Tensor) -> Outputs:
    return Outputs.of({Need.LOGITS: logits}, owner="student")


@settings(max_examples=20)
@given(batch=st.integers(1, 4), classes=st.integers(2, 5), peers=st.integers(1, 3), seed=st.integers(0, 1000))
def test_it_is_the_mean_divergence_from_the_peers(batch, classes, peers, seed):
    s, *others = (drawn(batch, classes, seed=seed + i, factor=3) for i in range(peers + 1))
    expected = sum(divergence(other.numpy(), s.numpy()) for other in others) / peers
    assert dml(s, others).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_its_gradient_is_the_students_probabilities_less_the_peers():
    s, t = pair(3, 4)
    s.requires_grad_()
    t.requires_grad_()
    dml(s, [t]).backward()
    assert torch.allclose(s.grad, (s.softmax(1) - t.softmax(1)).detach() / 3)
    assert t.grad is None


def test_logits_of_ten_thousand_give_numbers():
    s, t = pair(4, 5, factor=1e4)
    s.requires_grad_()
    loss = dml(s, [t])
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()


@pytest.mark.parametrize("peers", [1, 2])
def test_each_peer_learns_the_labels_and_from_all_others(peers):
    method = create_method("dml", peers=peers)
    module = method.build(Shapes(3, 4, (), fresh=peer), Shapes(3, 4, ()), FACTS).eval()
    batch, logits = batch_of(5), drawn(5, 3).requires_grad_()
    said = [network(batch.inputs).detach().numpy() for network in module]
    given_ = method.loss(student_of(logits), Outputs(owner="teacher"), batch, module)
    s = logits.detach().numpy()
    expected = 0.0
    for place, own in enumerate(said):
        others = [s, *said[:place], *said[place + 1 :]]
        expected += cross_entropy(own, batch.targets.numpy()) + sum(divergence(other, own) for other in others) / len(others)
    assert given_.loss.item() == pytest.approx(sum(divergence(own, s) for own in said) / peers, rel=1e-5)
    assert given_.auxiliary.item() == pytest.approx(expected, rel=1e-5)


def test_the_peers_part_trains_no_student_and_the_students_part_no_peer():
    method = create_method("dml", peers=2)
    module = method.build(Shapes(3, 4, (), fresh=peer), Shapes(3, 4, ()), FACTS)
    logits = drawn(5, 3).requires_grad_()
    given_ = method.loss(student_of(logits), Outputs(owner="teacher"), batch_of(5), module)
    assert torch.autograd.grad(given_.auxiliary, logits, allow_unused=True, retain_graph=True) == (None,)
    parameters = list(module.parameters())
    assert all(g is None for g in torch.autograd.grad(given_.loss, parameters, allow_unused=True, retain_graph=True))
    assert all(g.any() for g in torch.autograd.grad(given_.auxiliary, parameters))


def test_what_a_peer_drops_is_the_methods_own_draw():
    method = create_method("dml")
    module = method.build(Shapes(3, 4, (), fresh=peer), Shapes(3, 4, ()), FACTS).train()
    logits = drawn(5, 3)
    torch.manual_seed(1)
    first = method.loss(student_of(logits), Outputs(owner="teacher"), batch_of(5), module).loss
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(first, method.loss(student_of(logits), Outputs(owner="teacher"), batch_of(5), module).loss)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, method.loss(student_of(logits), Outputs(owner="teacher"), batch_of(5, seed=1), module).loss)


def test_a_small_weight_of_the_students_loss_leaves_the_peer_learning():
    torch.manual_seed(0)
    method = create_method("dml")
    module = method.build(Shapes(3, 4, (), fresh=lambda: nn.Sequential(nn.Flatten(), Scaled(), nn.Linear(4, 3))), Shapes(3, 4, ()), FACTS)
    objective = Objective(1.0, [Term(method, 1e-6)], {"dml": module}, stages=[], label_smoothing=0.0, seed=0)
    optimizer = torch.optim.SGD([p for group in objective.groups() for p in group.parameters], lr=1.0)
    batch, student = batch_of(6), student_of(drawn(6, 3))
    auxiliary = []
    for _ in range(60):
        losses = objective(student, None, batch)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        auxiliary.append(losses.parts["dml_auxiliary"].item())
    assert auxiliary[-1] < 0.9 * auxiliary[0]


def test_without_a_maker_of_networks_it_is_refused():
    with pytest.raises(InputError, match="trains a second network of the student's architecture"):
        create_method("dml").build(Shapes(3, 4, ()), Shapes(3, 4, ()), FACTS)


def test_a_number_of_peers_below_one_is_refused():
    with pytest.raises(InputError, match=r"dml\.peers: expected a number >= 1, got 0"):
        create_method("dml", peers=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_the_softmax(dtype):
    student, other = (logits.to(dtype) for logits in pair(4, 5, factor=8))
    assert dml(student, [other]).item() == pytest.approx(divergence(other.double().numpy(), student.double().numpy()), rel=1e-5)
