"""Probabilistic knowledge transfer, against the divergence of each sample's probabilities in loops over pairs."""

import math

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import REGISTRY, create_method
from kdzoo.functional import pkt

quick = settings(max_examples=25)
seeds = st.integers(0, 1000)


def probabilities(e: np.ndarray) -> np.ndarray:
    unit = np.array([row / (math.sqrt(sum(row**2)) + 1e-7) for row in e])
    kernel = np.array([[(float(a @ b) + 1) / 2 for b in unit] for a in unit])
    return kernel / kernel.sum(1, keepdims=True)


def divergences(s: np.ndarray, t: np.ndarray) -> list[float]:
    """The divergence of each sample's row."""
    p, q = probabilities(s), probabilities(t)
    return [sum(b * math.log((b + 1e-7) / (a + 1e-7)) for a, b in zip(*both, strict=True)) for both in zip(p, q, strict=True)]


def oracle(s: np.ndarray, t: np.ndarray) -> float:
    return sum(divergences(s, t)) / len(s) ** 2


@quick
@given(batch=st.integers(1, 7), widths=st.tuples(st.integers(2, 6), st.integers(2, 6)), seed=seeds)
def test_it_is_its_definition_for_any_two_widths(batch, widths, seed):
    s, t = drawn(batch, widths[0], seed=seed), drawn(batch, widths[1], seed=seed + 1, factor=4)
    assert pkt(s, t).item() == pytest.approx(oracle(s.numpy(), t.numpy()), rel=1e-8, abs=1e-14)


def test_by_hand():
    """Orthogonal for the student: rows (2, 1) / 3; the same for the teacher: rows of halves."""
    s, t = torch.eye(2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
    assert pkt(s, t).item() == pytest.approx((0.5 * math.log(0.75) + 0.5 * math.log(1.5)) / 2, rel=1e-5)


def test_opposite_embeddings_have_a_finite_loss_and_gradient():
    """Their kernel is zero, give or take a rounding, and so is their probability."""
    half, t = (z.float() for z in pair(32, 500))
    opposite = torch.cat([half[:16], -half[:16]])
    for student, teacher in ((opposite, t), (t, opposite), (opposite, opposite.roll(1, 0))):
        student = student.clone().requires_grad_()
        loss = pkt(student, teacher)
        loss.backward()
        assert loss.item() == pytest.approx(oracle(student.detach().double().numpy(), teacher.double().numpy()), rel=1e-2)
        assert torch.isfinite(student.grad).all()


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = (z.requires_grad_() for z in pair(5, 4))
    assert torch.autograd.gradcheck(lambda x: pkt(x, t), s)
    pkt(s, t).backward()
    assert t.grad is None


@pytest.mark.parametrize("offset", [0.0, 1.0, 5.0])
def test_float32_keeps_the_gradient_of_alike_embeddings(offset):
    """The loss is a sum of terms that nearly cancel where all samples look alike, as after a ReLU."""
    s, t = (torch.relu(z + offset) for z in pair(64, 128))
    gradients = []
    for dtype in (torch.float64, torch.float32):
        student = s.to(dtype, copy=True).requires_grad_()
        pkt(student, t.to(dtype)).backward()
        gradients.append(student.grad.double())
    assert torch.linalg.norm(gradients[1] - gradients[0]) < 3e-4 * torch.linalg.norm(gradients[0])


def test_one_sample_has_no_neighbours():
    s, t = pair(1, 4)
    assert pkt(s, t).item() == pytest.approx(0, abs=1e-15)


def test_zero_and_equal_embeddings_give_a_finite_loss_and_gradient():
    s, t = (z.float() for z in pair(4, 3))
    for degenerate in (torch.zeros(4, 3), s[:1].repeat(4, 1), torch.cat([torch.zeros(1, 3), s[1:]])):
        degenerate = degenerate.clone().requires_grad_()
        loss = pkt(degenerate, t)
        loss.backward()
        assert loss.item() == pytest.approx(oracle(degenerate.detach().double().numpy(), t.double().numpy()), rel=1e-4)
        assert torch.isfinite(degenerate.grad).all()


def test_long_half_precise_embeddings_are_widened_before_they_are_squared():
    s, t = (z.half() for z in pair(4, 16, factor=1e4))
    loss = pkt(s, t)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle(s.double().numpy(), t.double().numpy()), rel=1e-4)


def test_autocast_does_not_lower_the_products():
    s, t = (z.float() for z in pair(6, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = pkt(s, t)
    assert lowered.item() == pkt(s, t).item()


def loss_of(s: torch.Tensor, t: torch.Tensor) -> float:
    return create_method("pkt").loss(outputs("student", embedding=s), outputs("teacher", embedding=t), None, nn.Module()).item()


def test_the_method_is_the_mean_over_rows_and_with_batches_of_64_the_published_sum():
    s, t = pair(6, 5)
    assert loss_of(s, t) == pytest.approx(np.mean(divergences(s.numpy(), t.numpy())))
    card = REGISTRY.get("pkt").card
    s, t = pair(64, 5)
    assert card.published.term * loss_of(s, t) == pytest.approx(30000 * oracle(s.numpy(), t.numpy()))


def test_the_same_samples_twice_weigh_the_same():
    """Published code takes the mean over all pairs, so that its weight depends on the batch size."""
    s, t = pair(6, 5)
    assert loss_of(torch.cat([s, s]), torch.cat([t, t])) == pytest.approx(loss_of(s, t), rel=1e-4)
