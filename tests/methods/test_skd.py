"""Streamlined distillation, against its equations by loops and an explicit inverse."""

import numpy as np
import pytest
import torch
from drawn import outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.functional import hinton, skd
from kdzoo.methods.skd import direction


def oracle(student: np.ndarray, teacher: np.ndarray, ridge: float) -> float:
    """(1/B) sum_i sqrt(a_i' M^-1 a_i): A the Gram matrices' difference over K, M its columns' covariance plus the ridge."""
    batch, classes = student.shape
    rows = [[z / sum(x * x for x in sample) ** 0.5 for z in sample] for sample in (*student.tolist(), *teacher.tolist())]
    ours, theirs = rows[:batch], rows[batch:]

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    a = np.array([[(cosine(ours[i], ours[j]) - cosine(theirs[i], theirs[j])) / classes for j in range(batch)] for i in range(batch)])
    means = [sum(a[k][j] for k in range(batch)) / batch for j in range(batch)]
    covariance = np.array(
        [[sum((a[k][i] - means[i]) * (a[k][j] - means[j]) for k in range(batch)) / (batch - 1) for j in range(batch)] for i in range(batch)]
    )
    inverse = np.linalg.inv(covariance + ridge * np.eye(batch))
    return sum((a[i] @ inverse @ a[i]) ** 0.5 for i in range(batch)) / batch


@settings(max_examples=25)
@given(batch=st.integers(2, 6), classes=st.integers(2, 8), ridge=st.sampled_from([0.01, 0.1, 1.0]), seed=st.integers(0, 1000))
def test_the_direction_term_is_its_equation(batch, classes, ridge, seed):
    s, t = pair(batch, classes, seed=seed, factor=2)
    assert direction(s, t, ridge=ridge).item() == pytest.approx(oracle(s.numpy(), t.numpy(), ridge), rel=1e-7)


def test_the_loss_is_hintons_and_the_direction_term():
    s, t = pair(5, 7, factor=2)
    expected = hinton(s, t, temperature=4.0).item() + oracle(s.numpy(), t.numpy(), 0.1)
    assert skd(s, t, temperature=4.0, ridge=0.1).item() == pytest.approx(expected, rel=1e-9)
    method = create_method("skd")
    assert method.loss(outputs("student", logits=s), outputs("teacher", logits=t), None, nn.Module()).item() == pytest.approx(expected)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = (x.requires_grad_() for x in pair(4, 5))
    assert torch.autograd.gradcheck(lambda x: skd(x, t, temperature=2.0, ridge=0.1), s)
    skd(s, t, temperature=2.0, ridge=0.1).backward()
    assert t.grad is None


def test_the_scale_of_a_networks_logits_does_not_count_for_the_directions():
    s, t = pair(5, 6)
    assert direction(30 * s, t / 30, ridge=0.1).item() == pytest.approx(direction(s, t, ridge=0.1).item(), rel=1e-9)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_equal_directions_cost_nothing_and_have_a_gradient_of_zero(factor):
    _, t = pair(5, 6)
    s = (factor * t).requires_grad_()
    loss = direction(s, t, ridge=0.1)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert torch.isfinite(s.grad).all()


def test_one_sample_has_hintons_loss():
    s, t = pair(1, 6)
    s.requires_grad_()
    loss = skd(s, t, temperature=4.0, ridge=0.1)
    loss.backward()
    assert loss.item() == pytest.approx(hinton(s, t, temperature=4.0).item())
    assert torch.isfinite(s.grad).all()
