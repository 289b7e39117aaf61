"""Consistency within and across views, against its four divergences and two thresholds in loops."""

import math

import numpy as np
import pytest
import torch
from drawn import batch_of, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.contract.needs import Pass
from kdzoo.contract.outputs import Outputs
from kdzoo.functional import crld, hinton

PUBLISHED = {"within_weight": 2.0, "cross_weight": 0.5, "within_threshold": 0.9, "cross_threshold": 0.2, "temperature": 4.0}


def softened(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(z)) / temperature) for value in z]
    return [power / sum(powers) for power in powers]


def kd(student: list[float], teacher: list[float], temperature: float) -> float:
    pairs = zip(softened(teacher, temperature), softened(student, temperature), strict=True)
    return temperature**2 * sum(p * math.log(p / q) for p, q in pairs)


def oracle(
    s: np.ndarray,
    t: np.ndarray,
    s2: np.ndarray,
    t2: np.ndarray,
    within_weight: float,
    cross_weight: float,
    within_threshold: float,
    cross_threshold: float,
    temperature: float,
) -> float:
    total = 0.0
    for a, b, a2, b2 in zip(s.tolist(), t.tolist(), s2.tolist(), t2.tolist(), strict=True):
        if max(softened(b, 1.0)) >= within_threshold:
            total += within_weight * (kd(a, b, temperature) + kd(a2, b2, temperature))
        if max(softened(b2, 1.0)) >= cross_threshold:
            total += cross_weight * (kd(a2, b, temperature) + kd(a, b2, temperature))
    return total / len(s)


def viewed(owner: str, first: torch.Tensor, second: torch.Tensor) -> Outputs:
    return outputs(owner, logits=first).with_pass(Pass.SECOND_VIEW, outputs(owner, logits=second))


@settings(max_examples=30)
@given(
    batch=st.integers(1, 6),
    classes=st.integers(2, 6),
    weights=st.tuples(st.floats(0, 3), st.floats(0, 3), st.floats(0, 1), st.floats(0, 1), st.floats(0.5, 8)),
    seed=st.integers(0, 1000),
)
def test_it_is_its_definition(batch, classes, weights, seed):
    s, t = pair(batch, classes, seed=seed, factor=2)
    s2, t2 = pair(batch, classes, seed=seed + 2000, factor=2)
    expected = oracle(s.numpy(), t.numpy(), s2.numpy(), t2.numpy(), *weights)
    got = crld(s, t, s2, t2, **dict(zip(PUBLISHED, weights, strict=True)))
    assert got.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_two_equal_views_without_thresholds_are_hintons_loss_times_twice_the_weights():
    s, t = pair(4, 5)
    every = {**PUBLISHED, "within_threshold": 0.0, "cross_threshold": 0.0}
    assert crld(s, t, s, t, **every).item() == pytest.approx(2 * (2.0 + 0.5) * hinton(s, t, temperature=4.0).item())


def test_an_unsure_teacher_teaches_nothing():
    s, t = pair(3, 50, factor=0.01)
    assert crld(s, t, s, t, **PUBLISHED).item() == 0


def test_its_gradient_is_the_numerical_one_and_the_teachers_get_none():
    (s, t), (s2, t2) = pair(4, 3, factor=3), pair(4, 3, seed=1, factor=3)
    assert torch.autograd.gradcheck(lambda x, y: crld(x, t, y, t2, **PUBLISHED), (s.requires_grad_(), s2.requires_grad_()))
    t.requires_grad_()
    t2.requires_grad_()
    crld(s, t, s2, t2, **PUBLISHED).backward()
    assert t.grad is t2.grad is None


def test_half_precision_is_widened_first():
    (s, t), (s2, t2) = ((z.half() for z in pair(4, 20, seed=seed, factor=5)) for seed in (0, 1))
    loss = crld(s, t, s2, t2, **PUBLISHED)
    assert loss.dtype == torch.float32
    expected = oracle(*(z.double().numpy() for z in (s, t, s2, t2)), **PUBLISHED)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_method_adds_the_second_views_cross_entropy():
    (s, t), (s2, t2) = pair(3, 4, factor=3), pair(3, 4, seed=1, factor=3)
    y = torch.tensor([0, 3, 1])
    said = create_method("crld").loss(viewed("student", s, s2), viewed("teacher", t, t2), batch_of(torch.arange(3), y), nn.Module())
    labels = -np.mean([math.log(softened(z, 1.0)[k]) for z, k in zip(s2.tolist(), y.tolist(), strict=True)])
    assert said.item() == pytest.approx(oracle(s.numpy(), t.numpy(), s2.numpy(), t2.numpy(), **PUBLISHED) + labels)
