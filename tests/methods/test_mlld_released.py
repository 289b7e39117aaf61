"""The released code's behaviour, against a plain account of it: masks that scale, and logits of the wrong view."""

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
from kdzoo.functional import mlld, mlld_released


def softened(z: np.ndarray, temperature: float) -> np.ndarray:
    powers = np.exp((z - z.max(1, keepdims=True)) / temperature)
    return powers / powers.sum(1, keepdims=True)


def kd(s: np.ndarray, t: np.ndarray, temperature: float) -> float:
    q, p = softened(s, temperature), softened(t, temperature)
    return temperature**2 * float((p * np.log(p / q)).sum(1).mean())


def relations(s: np.ndarray, t: np.ndarray, temperature: float) -> tuple[float, float]:
    q, p = softened(s, temperature), softened(t, temperature)
    among = sum((a @ b - c @ d) ** 2 for a, c in zip(q, p, strict=True) for b, d in zip(q, p, strict=True)) / len(q)
    across = sum((a @ b - c @ d) ** 2 for a, c in zip(q.T, p.T, strict=True) for b, d in zip(q.T, p.T, strict=True)) / q.shape[1]
    return among, across


def oracle(s: np.ndarray, t: np.ndarray, s2: np.ndarray, t2: np.ndarray, temperature: float) -> float:
    p = softened(t, 1.0)
    q_s = np.mean(p.max(1) <= np.percentile(p.max(1), 50))
    q_c = np.mean(p.sum(0) <= np.percentile(p.sum(0), 50))
    total = sum(kd(s2, t2, one) for one in (temperature, 3.0, 5.0)) + sum(kd(s, t, one) for one in (2.0, 6.0))
    for one in (temperature, 3.0, 5.0, 2.0, 6.0):
        among, across = relations(s, t, one)
        total += q_s * kd(s, t, one) + q_s * among + q_c * across
    return total


def viewed(owner: str, first: torch.Tensor, second: torch.Tensor) -> Outputs:
    return outputs(owner, logits=first).with_pass(Pass.SECOND_VIEW, outputs(owner, logits=second))


@settings(max_examples=20)
@given(batch=st.integers(1, 6), classes=st.integers(2, 6), temperature=st.sampled_from([0.7, 2.0, 4.0]), seed=st.integers(0, 1000))
def test_it_is_what_the_code_computes(batch, classes, temperature, seed):
    s, t = pair(batch, classes, seed=seed, factor=2)
    s2, t2 = pair(batch, classes, seed=seed + 2000, factor=2)
    expected = oracle(s.numpy(), t.numpy(), s2.numpy(), t2.numpy(), temperature)
    assert mlld_released(s, t, s2, t2, temperature=temperature).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_no_sample_is_masked():
    """Two equal samples with teachers of unequal certainty: each has a gradient, unlike in the loss without the fault."""
    s, s2 = pair(2, 3)
    t = torch.tensor([[9.0, 0.0, 0.0], [0.5, 0.0, 0.1]], dtype=torch.float64)
    s.requires_grad_()
    released, mended = (torch.autograd.grad(loss(s, t, s2, s2, temperature=4.0), s)[0] for loss in (mlld_released, mlld))
    assert released[0].norm() > 10 * mended[0].norm()


def test_its_gradient_is_the_numerical_one_and_the_teachers_get_none():
    (s, t), (s2, t2) = pair(4, 3), pair(4, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x, y: mlld_released(x, t, y, t2, temperature=4.0), (s.requires_grad_(), s2.requires_grad_()))
    t.requires_grad_()
    mlld_released(s, t, s2, t2, temperature=4.0).backward()
    assert t.grad is None


def test_the_method_adds_the_second_views_cross_entropy():
    (s, t), (s2, t2) = pair(3, 4), pair(3, 4, seed=1)
    y = torch.tensor([0, 3, 1])
    made = create_method("mlld_released")
    said = made.loss(viewed("student", s, s2), viewed("teacher", t, t2), batch_of(torch.arange(3), y), nn.Module())
    labels = -np.mean([math.log(softened(s2.numpy(), 1.0)[i, k]) for i, k in enumerate(y.tolist())])
    assert said.item() == pytest.approx(oracle(s.numpy(), t.numpy(), s2.numpy(), t2.numpy(), 4.0) + labels / 9)
