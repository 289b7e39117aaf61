"""Normalised distillation, against its two cross-entropies in loops."""

import math

import numpy as np
import pytest
import torch
from drawn import batch_of, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.functional import nkd

quick = settings(max_examples=30)


def softened(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(z)) / temperature) for value in z]
    return [power / sum(powers) for power in powers]


def oracle(s: np.ndarray, t: np.ndarray, y: list[int], gamma: float, temperature: float) -> float:
    total = 0.0
    for student, teacher, target in zip(s.tolist(), t.tolist(), y, strict=True):
        total -= softened(teacher, 1.0)[target] * math.log(softened(student, 1.0)[target])
        q_t, q_s = (softened([z for k, z in enumerate(one) if k != target], temperature) for one in (teacher, student))
        total -= gamma * temperature**2 * sum(a * math.log(b) for a, b in zip(q_t, q_s, strict=True))
    return total / len(s)


def labels(batch: int, classes: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(seed))


@quick
@given(
    batch=st.integers(1, 6),
    classes=st.integers(2, 8),
    gamma=st.floats(0, 5),
    temperature=st.floats(0.5, 10),
    seed=st.integers(0, 1000),
)
def test_it_is_the_papers_equation(batch, classes, gamma, temperature, seed):
    s, t = pair(batch, classes, seed=seed, factor=3)
    y = labels(batch, classes, seed)
    expected = oracle(s.numpy(), t.numpy(), y.tolist(), gamma, temperature)
    assert nkd(s, t, y, nontarget_weight=gamma, temperature=temperature).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = pair(4, 5)
    t.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: nkd(x, t.detach(), labels(4, 5), nontarget_weight=1.5, temperature=2.0), s.requires_grad_())
    nkd(s, t, labels(4, 5), nontarget_weight=1.5, temperature=2.0).backward()
    assert t.grad is None


def test_the_target_is_taken_out_of_the_second_sum():
    """A target whose logit is moved changes the first part alone."""
    s, t = pair(2, 4)
    y = torch.tensor([1, 3])
    without = [nkd(s, t, y, nontarget_weight=0.0, temperature=1.0).item(), nkd(s, t, y, nontarget_weight=1.5, temperature=1.0).item()]
    s[torch.arange(2), y] += 3
    moved = [nkd(s, t, y, nontarget_weight=0.0, temperature=1.0).item(), nkd(s, t, y, nontarget_weight=1.5, temperature=1.0).item()]
    assert moved[1] - moved[0] == pytest.approx(without[1] - without[0], rel=1e-9)
    assert moved[0] < without[0]


def test_a_teacher_that_is_certain_gives_cross_entropy():
    s, _ = pair(3, 4)
    y = torch.tensor([2, 0, 1])
    certain = 1e4 * torch.nn.functional.one_hot(y, 4).double()
    expected = torch.nn.functional.cross_entropy(s, y).item()
    assert nkd(s, certain, y, nontarget_weight=0.0, temperature=1.0).item() == pytest.approx(expected)


def test_of_two_classes_only_the_target_is_left():
    s, t = pair(3, 2)
    y = torch.tensor([0, 1, 0])
    assert nkd(s, t, y, nontarget_weight=9.0, temperature=2.0).item() == nkd(s, t, y, nontarget_weight=0.0, temperature=2.0).item()


def test_the_method_is_the_function():
    s, t = pair(3, 4)
    y = labels(3, 4)
    said = create_method("nkd").loss(outputs("student", logits=s), outputs("teacher", logits=t), batch_of(torch.arange(3), y), nn.Module())
    assert said.item() == pytest.approx(oracle(s.numpy(), t.numpy(), y.tolist(), 1.5, 1.0))
