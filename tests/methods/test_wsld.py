"""Weighted soft labels, against the paper's equation in loops."""

import math

import numpy as np
import pytest
import torch
from drawn import batch_of, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.functional import hinton, wsld


def softened(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(z)) / temperature) for value in z]
    return [power / sum(powers) for power in powers]


def weight(student: list[float], teacher: list[float], target: int) -> float:
    ce_s, ce_t = (-math.log(softened(z, 1.0)[target]) for z in (student, teacher))
    return 1 - math.exp(-ce_s / (ce_t + 1e-7))


def oracle(s: np.ndarray, t: np.ndarray, y: list[int], temperature: float) -> float:
    total = 0.0
    for student, teacher, target in zip(s.tolist(), t.tolist(), y, strict=True):
        q, p = softened(student, temperature), softened(teacher, temperature)
        total -= weight(student, teacher, target) * sum(a * math.log(b) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(s)


def labels(batch: int, classes: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30)
@given(batch=st.integers(1, 6), classes=st.integers(2, 8), temperature=st.floats(0.5, 10), seed=st.integers(0, 1000))
def test_it_is_the_papers_equation(batch, classes, temperature, seed):
    s, t = pair(batch, classes, seed=seed, factor=2)
    y = labels(batch, classes, seed)
    expected = oracle(s.numpy(), t.numpy(), y.tolist(), temperature)
    assert wsld(s, t, y, temperature=temperature).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_its_gradient_is_hintons_of_each_sample_times_a_constant_weight():
    s, t = pair(4, 5)
    y = labels(4, 5)
    s.requires_grad_()
    wsld(s, t, y, temperature=2.0).backward()
    got, s.grad = s.grad.clone(), None
    hinton(s, t, temperature=2.0).backward()
    weights = [weight(a, b, k) for a, b, k in zip(s.tolist(), t.tolist(), y.tolist(), strict=True)]
    np.testing.assert_allclose(got.numpy(), np.array(weights)[:, None] * s.grad.numpy(), rtol=1e-9)


def test_a_student_that_knows_better_is_hardly_taught():
    t = torch.tensor([[0.0, 0.0, 0.0]], dtype=torch.float64)
    ahead, behind = (torch.tensor([[size, 0.0, 0.0]], dtype=torch.float64) for size in (12.0, -12.0))
    y = torch.tensor([0])
    gradients = []
    for s in (ahead, behind):
        s.requires_grad_()
        wsld(s, t, y, temperature=2.0).backward()
        gradients.append(s.grad.norm().item())
    assert gradients[0] < 1e-4 * gradients[1]


def test_a_teacher_that_is_certain_and_right_gives_a_finite_loss_and_no_gradient_to_itself():
    s, t = pair(1, 4)
    t = 1e4 * torch.nn.functional.one_hot(torch.tensor([2]), 4).double()
    t.requires_grad_()
    loss = wsld(s.requires_grad_(), t, torch.tensor([2]), temperature=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(s, torch.tensor([2])).item())
    assert t.grad is None


def test_the_method_is_the_function():
    s, t = pair(3, 4)
    y = labels(3, 4)
    given = (outputs("student", logits=s), outputs("teacher", logits=t), batch_of(torch.arange(3), y), nn.Module())
    assert create_method("wsld").loss(*given).item() == pytest.approx(oracle(s.numpy(), t.numpy(), y.tolist(), 2.0))
