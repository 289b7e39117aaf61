"""Standardised logits, against the paper's algorithms in loops."""

import math
import statistics

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import REGISTRY, create_method
from kdzoo.functional import logit_std
from kdzoo.methods.logit_std import standardised

quick = settings(max_examples=30)
seeds = st.integers(0, 1000)


def score(z: list[float]) -> list[float]:
    return [(value - statistics.mean(z)) / (1e-7 + statistics.stdev(z)) for value in z]


def softened(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(z)) / temperature) for value in z]
    return [power / sum(powers) for power in powers]


def oracle(s: np.ndarray, t: np.ndarray, temperature: float) -> float:
    total = 0.0
    for student, teacher in zip(s.tolist(), t.tolist(), strict=True):
        q, p = softened(score(student), temperature), softened(score(teacher), temperature)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(s)


@quick
@given(batch=st.integers(1, 6), classes=st.integers(2, 8), temperature=st.floats(0.5, 10), seed=seeds)
def test_it_is_the_papers_algorithm(batch, classes, temperature, seed):
    s, t = pair(batch, classes, seed=seed, factor=3)
    expected = oracle(s.numpy(), t.numpy(), temperature)
    assert logit_std(s, t, temperature=temperature).item() == pytest.approx(expected, rel=1e-8, abs=1e-12)


def test_the_deviation_is_the_unbiased_one():
    z = standardised(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64))
    np.testing.assert_allclose(z.numpy(), [[-1.0, 0.0, 1.0]], rtol=1e-6)


@quick
@given(seed=seeds, factor=st.floats(0.01, 100), shift=st.floats(-100, 100))
def test_a_shift_of_the_logits_and_a_factor_on_them_change_nothing(seed, factor, shift):
    s, t = pair(4, 6, seed=seed)
    expected = logit_std(s, t, temperature=2.0).item()
    assert logit_std(s * factor + shift, t, temperature=2.0).item() == pytest.approx(expected, rel=1e-4)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = pair(4, 5)
    assert torch.autograd.gradcheck(lambda x: logit_std(x, t, temperature=2.0), s.requires_grad_())
    t.requires_grad_()
    logit_std(s, t, temperature=2.0).backward()
    assert t.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_logits_have_a_finite_gradient(dtype):
    same = torch.full((2, 5), 0.3, dtype=dtype).requires_grad_()
    loss = logit_std(same, drawn(2, 5).to(dtype), temperature=2.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(same.grad).all()


def test_of_two_classes_only_their_order_is_left():
    s, t = torch.tensor([[0.1, 0.0]]), torch.tensor([[9.0, 1.0]])
    assert logit_std(s, t, temperature=2.0).item() == pytest.approx(0, abs=1e-6)
    assert logit_std(-s, t, temperature=2.0).item() > 0.5


def test_half_precision_is_widened_first():
    s, t = (z.half() for z in pair(4, 100, factor=100))
    loss = logit_std(s, t, temperature=2.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle(s.double().numpy(), t.double().numpy(), 2.0), rel=1e-4)


def test_the_method_is_the_function():
    s, t = pair(3, 4)
    said = create_method("logit_std").loss(outputs("student", logits=s), outputs("teacher", logits=t), None, nn.Module())
    assert said.item() == pytest.approx(oracle(s.numpy(), t.numpy(), 2.0))
    card = REGISTRY.get("logit_std").card
    assert card.scale * 0.9 == card.published.term
