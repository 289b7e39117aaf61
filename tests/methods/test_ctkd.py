"""A learnt temperature, against Hinton's loss at that temperature and its gradient with the sign turned."""

import math

import numpy as np
import pytest
import torch
from drawn import batch_of, drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.batch import Batch, Progress
from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.functional import ctkd
from kdzoo.methods.ctkd import Temperature, reversed_gradient


def softened(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(z)) / temperature) for value in z]
    return [power / sum(powers) for power in powers]


def oracle(s: np.ndarray, t: np.ndarray, temperature: float) -> float:
    total = 0.0
    for student, teacher in zip(s.tolist(), t.tolist(), strict=True):
        q, p = softened(student, temperature), softened(teacher, temperature)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(s)


def at_epoch(epoch: int) -> Batch:
    batch = batch_of(torch.arange(3), torch.zeros(3, dtype=torch.int64))
    batch.clock = Progress(epoch, 240, 0, 1)
    return batch


def built(method) -> nn.Module:
    return method.build(Shapes(4, 4, ()), Shapes(4, 4, ()), DataFacts(8, 4, torch.zeros(8)))


@settings(max_examples=30)
@given(batch=st.integers(1, 5), classes=st.integers(2, 8), temperature=st.floats(0.5, 30), seed=st.integers(0, 1000))
def test_it_is_hintons_loss_at_a_given_temperature(batch, classes, temperature, seed):
    s, t = pair(batch, classes, seed=seed, factor=3)
    got = ctkd(s, t, torch.tensor(temperature, dtype=torch.float64))
    assert got.item() == pytest.approx(oracle(s.numpy(), t.numpy(), temperature), rel=1e-9, abs=1e-12)


def test_its_gradients_for_student_and_temperature_are_the_numerical_ones():
    s, t = pair(3, 4)
    temperature = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y: ctkd(x, t, y), (s.requires_grad_(), temperature))


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_reversal_leaves_the_value_and_turns_the_gradient(strength):
    value = torch.tensor(2.5, requires_grad=True)
    turned = reversed_gradient(value, strength)
    turned.square().backward()
    assert turned.item() == 2.5
    assert value.grad.item() == pytest.approx(-strength * 2 * 2.5)


def test_the_temperature_starts_where_theta_is_one_and_stays_between_its_bounds():
    temperature = Temperature(1.0, 20.0)
    assert temperature().item() == pytest.approx(1 + 20 / (1 + math.exp(-1)))
    for theta, bound in ((-1e4, 1.0), (1e4, 21.0)):
        nn.init.constant_(temperature.theta, theta)
        assert temperature().item() == bound


@pytest.mark.parametrize(("epoch", "expected"), [(0, (1 - math.cos(math.pi / 10)) / 2), (4, 0.5), (9, 1.0), (100, 1.0)])
def test_the_curriculum_rises_along_a_cosine(epoch, expected):
    assert create_method("ctkd").strength(Progress(epoch, 240, 0, 1)) == pytest.approx(expected)


def test_a_step_down_its_gradient_makes_the_task_harder():
    s, t = (z.float() for z in pair(3, 4))
    method = create_method("ctkd")
    module = built(method)
    given = (outputs("student", logits=s), outputs("teacher", logits=t), at_epoch(100), module)
    before = method.loss(*given)
    before.backward()
    with torch.no_grad():
        module.theta -= 0.1 * module.theta.grad
    assert method.loss(*given).item() > before.item()


def test_the_students_gradient_is_not_turned():
    s, t = (z.float() for z in pair(3, 4))
    s.requires_grad_()
    method = create_method("ctkd")
    module = built(method)
    method.loss(outputs("student", logits=s), outputs("teacher", logits=t), at_epoch(0), module).backward()
    turned, s.grad = s.grad.clone(), None
    ctkd(s, t, module().detach()).backward()
    torch.testing.assert_close(turned, s.grad)


def test_half_precision_is_widened_first_and_the_teacher_gets_no_gradient():
    s, t = (z.half().requires_grad_() for z in (drawn(3, 50), drawn(3, 50, seed=1)))
    loss = ctkd(s, t, torch.tensor(4.0))
    loss.backward()
    assert loss.dtype == torch.float32
    assert t.grad is None
