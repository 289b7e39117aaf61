"""A softened teacher for a student that is not, against the power of the teacher's probabilities in loops."""

import math

import numpy as np
import pytest
import torch
from drawn import outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.errors import InputError
from kdzoo.functional import hinton, ttm


def softmax(z: list[float]) -> list[float]:
    powers = [math.exp(value - max(z)) for value in z]
    return [power / sum(powers) for power in powers]


def oracle(s: np.ndarray, t: np.ndarray, power: float) -> float:
    total = 0.0
    for student, teacher in zip(s.tolist(), t.tolist(), strict=True):
        powered = [p**power for p in softmax(teacher)]
        q = [p / sum(powered) for p in powered]
        total += sum(a * math.log(a / b) for a, b in zip(q, softmax(student), strict=True))
    return total / len(s)


@settings(max_examples=30)
@given(batch=st.integers(1, 6), classes=st.integers(2, 8), power=st.floats(0.05, 1), seed=st.integers(0, 1000))
def test_it_is_the_papers_power_transform(batch, classes, power, seed):
    s, t = pair(batch, classes, seed=seed, factor=3)
    assert ttm(s, t, power=power).item() == pytest.approx(oracle(s.numpy(), t.numpy(), power), rel=1e-9, abs=1e-12)


def test_with_the_power_one_it_is_hintons_loss_at_temperature_one():
    s, t = pair(4, 6)
    assert ttm(s, t, power=1.0).item() == pytest.approx(hinton(s, t, temperature=1.0).item())


def test_its_gradient_is_the_difference_of_probabilities_and_the_teacher_gets_none():
    s, t = (z.requires_grad_() for z in pair(4, 5))
    ttm(s, t, power=0.2).backward()
    np.testing.assert_allclose(s.grad.numpy(), ((s.softmax(1) - (0.2 * t).softmax(1)) / 4).detach().numpy(), rtol=1e-10)
    assert t.grad is None


def test_a_certain_teacher_and_half_precision_are_finite():
    s, t = (z.half() for z in pair(4, 6, factor=1e4))
    loss = ttm(s, t, power=0.1)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_the_method_is_the_function():
    s, t = pair(3, 4)
    said = create_method("ttm").loss(outputs("student", logits=s), outputs("teacher", logits=t), None, nn.Module())
    assert said.item() == pytest.approx(oracle(s.numpy(), t.numpy(), 0.1))
    with pytest.raises(InputError, match=r"ttm\.power: "):
        create_method("ttm", power=0.0)
