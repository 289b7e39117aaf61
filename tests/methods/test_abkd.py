"""The alpha-beta divergence, against its equation in loops and its limits."""

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
from kdzoo.functional import abkd, hinton


def softened(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(z)) / temperature) for value in z]
    return [power / sum(powers) for power in powers]


def oracle(s: np.ndarray, t: np.ndarray, a: float, b: float, temperature: float) -> float:
    """-1 / (a b) sum_k [p^a q^b - a / (a + b) p^(a + b) - b / (a + b) q^(a + b)], mean over the samples."""
    total = 0.0
    for student, teacher in zip(s.tolist(), t.tolist(), strict=True):
        for p, q in zip(softened(teacher, temperature), softened(student, temperature), strict=True):
            total -= (p**a * q**b - a / (a + b) * p ** (a + b) - b / (a + b) * q ** (a + b)) / (a * b)
    return total / len(s)


powers = st.sampled_from([0.05, 0.3, 0.8, 1.0, 1.6])


@settings(max_examples=40)
@given(a=powers, b=powers, temperature=st.floats(0.5, 8), batch=st.integers(1, 5), classes=st.integers(2, 8), seed=st.integers(0, 1000))
def test_it_is_the_papers_equation(a, b, temperature, batch, classes, seed):
    s, t = pair(batch, classes, seed=seed, factor=2)
    got = abkd(s, t, teacher_power=a, student_power=b, temperature=temperature)
    assert got.item() == pytest.approx(oracle(s.numpy(), t.numpy(), a, b, temperature), rel=1e-7, abs=1e-10)


@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (1.0, 0.0), (0.0, 1.6)])
def test_where_a_power_is_0_it_is_the_limit_of_the_equation(a, b):
    s, t = pair(4, 5, factor=2)
    near = oracle(s.numpy(), t.numpy(), max(a, 1e-5), max(b, 1e-5), 4.0)
    assert abkd(s, t, teacher_power=a, student_power=b, temperature=4.0).item() == pytest.approx(near, rel=1e-3)


def test_its_corners_are_the_two_directions_of_kl():
    s, t = pair(4, 5, factor=2)
    forward = abkd(s, t, teacher_power=1.0, student_power=0.0, temperature=4.0)
    assert 16 * forward.item() == pytest.approx(hinton(s, t, temperature=4.0).item(), rel=1e-9)
    reverse = abkd(s, t, teacher_power=0.0, student_power=1.0, temperature=4.0)
    assert 16 * reverse.item() == pytest.approx(hinton(t, s, temperature=4.0).item(), rel=1e-9)


def test_half_the_squared_distance_of_log_probabilities_is_where_both_are_0():
    s, t = pair(4, 5)
    expected = (s.log_softmax(1) - t.log_softmax(1)).square().sum(1).mean().item() / 2
    assert abkd(s, t, teacher_power=0.0, student_power=0.0, temperature=1.0).item() == pytest.approx(expected)


@pytest.mark.parametrize(("a", "b"), [(0.8, 0.3), (0.5, 0.0), (0.0, 0.0)])
def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none(a, b):
    s, t = (x.requires_grad_() for x in pair(4, 5))
    assert torch.autograd.gradcheck(lambda x: abkd(x, t, teacher_power=a, student_power=b, temperature=2.0), s)
    abkd(s, t, teacher_power=a, student_power=b, temperature=2.0).backward()
    assert t.grad is None


@pytest.mark.parametrize("power", [0.01, 0.02])
def test_small_powers_are_computed_well_in_float32(power):
    s, t = pair(8, 10, factor=2)
    single = abkd(s.float(), t.float(), teacher_power=power, student_power=0.8, temperature=4.0)
    assert single.item() == pytest.approx(oracle(s.numpy(), t.numpy(), power, 0.8, 4.0), rel=1e-3)


def test_the_method_is_the_function():
    s, t = pair(3, 4)
    method = create_method("abkd", temperature=2.0)
    loss = method.loss(outputs("student", logits=s), outputs("teacher", logits=t), None, nn.Module())
    assert loss.item() == pytest.approx(oracle(s.numpy(), t.numpy(), 0.8, 0.3, 2.0))


NEGATIVE = [(0.8, -0.3), (1.6, -0.5), (-0.5, 0.3), (-0.4, -0.4), (0.3, -0.8)]


@pytest.mark.parametrize(("a", "b"), NEGATIVE)
def test_negative_powers_are_the_same_equation(a, b):
    s, t = pair(4, 6, factor=2)
    got = create_method("abkd", teacher_power=a, student_power=b, temperature=2.0).loss(
        outputs("student", logits=s), outputs("teacher", logits=t), None, nn.Module()
    )
    assert got.item() == pytest.approx(oracle(s.numpy(), t.numpy(), a, b, 2.0), rel=1e-9)
    assert got.item() > 0
    assert abkd(t, t, teacher_power=a, student_power=b, temperature=2.0).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("power", [0.5, -0.5, 1.5])
def test_where_the_powers_add_up_to_0_it_is_the_limit_of_the_equation(power):
    s, t = (x.requires_grad_() for x in pair(4, 5, factor=2))
    near = oracle(s.detach().numpy(), t.detach().numpy(), power, 1e-5 - power, 4.0)
    assert abkd(s, t, teacher_power=power, student_power=-power, temperature=4.0).item() == pytest.approx(near, rel=1e-3)
    assert torch.autograd.gradcheck(lambda x: abkd(x, t, teacher_power=power, student_power=-power, temperature=4.0), s)


@pytest.mark.parametrize(("a", "b"), [*NEGATIVE, (0.5, -0.5), (-3.0, 0.0), (0.0, -1.0), (-2.0, -2.0)])
def test_negative_powers_of_probabilities_near_0_stay_finite_in_float32(a, b):
    s = torch.tensor([[1e4, -1e4, 0.0], [0.0, 50.0, -50.0]], requires_grad=True)
    t = torch.tensor([[-1e4, 0.0, 1e4], [50.0, 0.0, -50.0]])
    loss = abkd(s, t, teacher_power=a, student_power=b, temperature=1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert loss > 0
    assert torch.isfinite(s.grad).all()


def test_a_power_that_is_no_number_is_refused_by_name():
    with pytest.raises(InputError, match="student_power"):
        create_method("abkd", student_power=math.inf)
