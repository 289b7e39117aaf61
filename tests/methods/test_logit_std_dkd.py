"""Decoupled distillation of standardised logits, against both papers' equations in loops."""

import math
import statistics

import numpy as np
import pytest
import torch
from drawn import batch_of, pair
from drawn import outputs as given_outputs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.batch import Progress
from kdzoo.contract.methods import create_method
from kdzoo.functional import logit_std_dkd

PUBLISHED = {"target_weight": 1.0, "nontarget_weight": 8.0, "temperature": 2.0}


def softened(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(z)) / temperature) for value in z]
    return [power / sum(powers) for power in powers]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def score(z: list[float]) -> list[float]:
    return [(value - statistics.mean(z)) / (1e-7 + statistics.stdev(z)) for value in z]


def oracle(s: np.ndarray, t: np.ndarray, y: list[int], target_weight: float, nontarget_weight: float, temperature: float) -> float:
    total = 0.0
    for student, teacher, target in zip(s.tolist(), t.tolist(), y, strict=True):
        student, teacher = score(student), score(teacher)
        p, q = softened(teacher, temperature)[target], softened(student, temperature)[target]
        others = [softened([z for k, z in enumerate(one) if k != target], temperature) for one in (teacher, student)]
        total += target_weight * divergence([p, 1 - p], [q, 1 - q]) + nontarget_weight * divergence(*others)
    return temperature**2 * total / len(s)


@settings(max_examples=30)
@given(batch=st.integers(1, 6), classes=st.integers(2, 8), temperature=st.floats(0.5, 10), seed=st.integers(0, 1000))
def test_it_is_the_papers_equations(batch, classes, temperature, seed):
    s, t = pair(batch, classes, seed=seed, factor=3)
    y = torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(seed))
    expected = oracle(s.numpy(), t.numpy(), y.tolist(), 1.0, 8.0, temperature)
    got = logit_std_dkd(s, t, y, target_weight=1.0, nontarget_weight=8.0, temperature=temperature)
    assert got.item() == pytest.approx(expected, rel=1e-8, abs=1e-12)


def test_the_size_of_the_logits_does_not_matter():
    s, t = pair(4, 6)
    y = torch.tensor([0, 5, 2, 3])
    expected = logit_std_dkd(s, t, y, **PUBLISHED).item()
    assert logit_std_dkd(30 * s + 5, t / 30, y, **PUBLISHED).item() == pytest.approx(expected, rel=1e-4)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = pair(4, 5)
    y = torch.tensor([0, 1, 2, 3])
    assert torch.autograd.gradcheck(lambda x: logit_std_dkd(x, t, y, **PUBLISHED), s.requires_grad_())
    t.requires_grad_()
    logit_std_dkd(s, t, y, **PUBLISHED).backward()
    assert t.grad is None


def test_the_method_is_the_function_and_dkds_warm_up():
    s, t = pair(3, 4)
    y = torch.tensor([0, 3, 1])
    made = create_method("logit_std_dkd")
    said = made.loss(given_outputs("student", logits=s), given_outputs("teacher", logits=t), batch_of(torch.arange(3), y), nn.Module())
    assert said.item() == pytest.approx(oracle(s.numpy(), t.numpy(), y.tolist(), **PUBLISHED))
    assert made.ramp(Progress(4, 240, 0, 1)) == pytest.approx(0.25)
