"""Samples weighed by the teacher's doubt, against the sum of its powered probabilities in loops."""

import math

import numpy as np
import pytest
import torch
from drawn import outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.functional import ttm, wttm


def softmax(z: list[float]) -> list[float]:
    powers = [math.exp(value - max(z)) for value in z]
    return [power / sum(powers) for power in powers]


def oracle(s: np.ndarray, t: np.ndarray, power: float) -> float:
    total = 0.0
    for student, teacher in zip(s.tolist(), t.tolist(), strict=True):
        powered = [p**power for p in softmax(teacher)]
        q = [p / sum(powered) for p in powered]
        total += sum(powered) * sum(a * math.log(a / b) for a, b in zip(q, softmax(student), strict=True))
    return total / len(s)


@settings(max_examples=30)
@given(batch=st.integers(1, 6), classes=st.integers(2, 8), power=st.floats(0.05, 1), seed=st.integers(0, 1000))
def test_it_is_the_papers_equation(batch, classes, power, seed):
    s, t = pair(batch, classes, seed=seed, factor=3)
    assert wttm(s, t, power=power).item() == pytest.approx(oracle(s.numpy(), t.numpy(), power), rel=1e-9, abs=1e-12)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = pair(4, 5)
    assert torch.autograd.gradcheck(lambda x: wttm(x, t, power=0.2), s.requires_grad_())
    t.requires_grad_()
    wttm(s, t, power=0.2).backward()
    assert t.grad is None


def test_a_certain_teacher_counts_once_and_one_that_knows_nothing_most():
    s, _ = pair(1, 10)
    certain, ignorant = torch.zeros(1, 10, dtype=torch.float64), torch.zeros(1, 10, dtype=torch.float64)
    certain[0, 0] = 1e4
    assert wttm(s, certain, power=0.2).item() == pytest.approx(ttm(s, certain, power=0.2).item())
    assert wttm(s, ignorant, power=0.2).item() == pytest.approx(10**0.8 * ttm(s, ignorant, power=0.2).item())


def test_half_precision_is_widened_first():
    s, t = (z.half() for z in pair(4, 100, factor=5))
    loss = wttm(s, t, power=0.2)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle(s.double().numpy(), t.double().numpy(), 0.2), rel=1e-5)


def test_the_method_is_the_function():
    s, t = pair(3, 4)
    said = create_method("wttm").loss(outputs("student", logits=s), outputs("teacher", logits=t), None, nn.Module())
    assert said.item() == pytest.approx(oracle(s.numpy(), t.numpy(), 0.2))
