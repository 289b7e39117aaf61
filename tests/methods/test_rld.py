"""Refined logits, against the paper's two parts in loops."""

import math

import numpy as np
import pytest
import torch
from drawn import batch_of, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.batch import Progress
from kdzoo.contract.methods import create_method
from kdzoo.functional import dkd, rld

PUBLISHED = {"confidence_weight": 1.0, "correlation_weight": 8.0, "confidence_temperature": 1.0, "temperature": 4.0}
CORRELATION = {**PUBLISHED, "confidence_weight": 0.0, "correlation_weight": 1.0}


def softened(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(z)) / temperature) for value in z]
    return [power / sum(powers) for power in powers]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def oracle(
    s: np.ndarray,
    t: np.ndarray,
    y: list[int],
    confidence_weight: float,
    correlation_weight: float,
    confidence_temperature: float,
    temperature: float,
) -> float:
    total = 0.0
    for student, teacher, target in zip(s.tolist(), t.tolist(), y, strict=True):
        p, q = max(softened(teacher, confidence_temperature)), softened(student, confidence_temperature)[target]
        total += confidence_weight * confidence_temperature**2 * divergence([p, 1 - p], [q, 1 - q])
        below = [k for k in range(len(teacher)) if teacher[k] < teacher[target]]
        if below:
            parts = (softened([one[k] for k in below], temperature) for one in (teacher, student))
            total += correlation_weight * temperature**2 * divergence(*parts)
    return total / len(s)


def labels(batch: int, classes: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40)
@given(
    batch=st.integers(1, 6),
    classes=st.integers(2, 8),
    weights=st.tuples(st.floats(0, 3), st.floats(0, 10), st.floats(0.5, 5), st.floats(0.5, 10)),
    seed=st.integers(0, 1000),
)
def test_it_is_the_papers_equations(batch, classes, weights, seed):
    s, t = pair(batch, classes, seed=seed, factor=2)
    y = labels(batch, classes, seed)
    got = rld(s, t, y, **dict(zip(PUBLISHED, weights, strict=True)))
    assert got.item() == pytest.approx(oracle(s.numpy(), t.numpy(), y.tolist(), *weights), rel=1e-9, abs=1e-12)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = pair(5, 6)
    assert torch.autograd.gradcheck(lambda x: rld(x, t, labels(5, 6), **PUBLISHED), s.requires_grad_())
    t.requires_grad_()
    rld(s, t, labels(5, 6), **PUBLISHED).backward()
    assert t.grad is None


def test_where_the_teacher_is_right_the_correlation_is_dkds_other_classes():
    s, t = pair(4, 6)
    y = t.argmax(1)
    expected = dkd(s, t, y, target_weight=0.0, nontarget_weight=1.0, temperature=4.0).item()
    assert rld(s, t, y, **CORRELATION).item() == pytest.approx(expected)


@pytest.mark.parametrize("lowest", [[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
def test_a_target_that_the_teacher_ranks_last_has_no_correlation_and_a_finite_gradient(lowest):
    s = torch.tensor([[1.0, 3.0, -2.0]], requires_grad=True)
    loss = rld(s, torch.tensor([lowest]), torch.tensor([0]), **CORRELATION)
    loss.backward()
    assert loss.item() == 0
    assert (s.grad == 0).all()


def test_classes_above_the_target_get_no_gradient_of_the_correlation():
    s = torch.tensor([[0.3, -1.0, 2.0, 0.5]], requires_grad=True)
    rld(s, torch.tensor([[1.0, 3.0, 0.0, -1.0]]), torch.tensor([0]), **CORRELATION).backward()
    assert (s.grad[0, :2] == 0).all()
    assert (s.grad[0, 2:] != 0).all()


def test_a_wrong_and_certain_teacher_makes_the_student_certain_of_the_right_class():
    s = torch.zeros(1, 4, requires_grad=True)
    rld(s, torch.tensor([[0.0, 9.0, 0.0, 0.0]]), torch.tensor([0]), **PUBLISHED).backward()
    assert s.grad[0, 0] < 0 < s.grad[0, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_classes_are_taken_out(dtype):
    s, t = (z.to(dtype) for z in pair(4, 50, factor=5))
    y = labels(4, 50)
    loss = rld(s, t, y, **PUBLISHED)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle(s.double().numpy(), t.double().numpy(), y.tolist(), **PUBLISHED), rel=1e-4)


def test_the_method_is_the_function_and_a_warm_up():
    s, t = pair(3, 4)
    y = labels(3, 4)
    made = create_method("rld")
    said = made.loss(outputs("student", logits=s), outputs("teacher", logits=t), batch_of(torch.arange(3), y), nn.Module())
    assert said.item() == pytest.approx(oracle(s.numpy(), t.numpy(), y.tolist(), **PUBLISHED))
    assert made.ramp(Progress(1, 240, 0, 1)) == pytest.approx(0.1)
