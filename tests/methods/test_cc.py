"""Correlation congruence, against the paper's sum of powers for every pair of samples."""

import math

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.errors import InputError
from kdzoo.functional import cc

quick = settings(max_examples=25)
seeds = st.integers(0, 1000)


def unit(e: np.ndarray) -> np.ndarray:
    lengths = np.sqrt((e**2).sum(1, keepdims=True))
    return np.divide(e, lengths, out=np.zeros_like(e), where=lengths > 0)


def kernel(e: np.ndarray, gamma: float, order: int) -> np.ndarray:
    def value(a: np.ndarray, b: np.ndarray) -> float:
        powers = range(order + 1)
        return sum(math.exp(-2 * gamma) * (2 * gamma) ** p / math.factorial(p) * float(a @ b) ** p for p in powers)

    return np.array([[value(a, b) for b in unit(e)] for a in unit(e)])


def oracle(s: np.ndarray, t: np.ndarray, gamma: float, order: int) -> float:
    return float(((kernel(s, gamma, order) - kernel(t, gamma, order)) ** 2).sum()) / len(s) ** 2


@quick
@given(
    batch=st.integers(1, 6),
    widths=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    gamma=st.floats(0.05, 5),
    order=st.integers(1, 7),
    seed=seeds,
)
def test_it_is_the_papers_loss_for_any_two_widths(batch, widths, gamma, order, seed):
    s, t = drawn(batch, widths[0], seed=seed), drawn(batch, widths[1], seed=seed + 1, factor=4)
    assert cc(s, t, gamma=gamma, order=order).item() == pytest.approx(oracle(s.numpy(), t.numpy(), gamma, order), rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("gamma", [0.1, 0.4, 2.0])
def test_of_high_order_it_is_the_gaussian_kernel_of_distances(gamma):
    s, t = pair(5, 3)
    gaussian = [np.exp(-gamma * ((unit(e)[:, None] - unit(e)[None]) ** 2).sum(2)) for e in (s.numpy(), t.numpy())]
    expected = ((gaussian[0] - gaussian[1]) ** 2).mean()
    assert cc(s, t, gamma=gamma, order=40).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("gamma", "order"), [(0.4, 2), (1.0, 1), (0.7, 5)])
def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none(gamma, order):
    s, t = (z.requires_grad_() for z in pair(4, 3))
    assert torch.autograd.gradcheck(lambda x: cc(x, t, gamma=gamma, order=order), s)
    cc(s, t, gamma=gamma, order=order).backward()
    assert t.grad is None


@quick
@given(seed=seeds)
def test_the_order_of_the_batch_does_not_count(seed):
    """Published code under this name compares neighbours in the batch."""
    s, t = pair(6, 4, seed=seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    expected = cc(s, t, gamma=0.4, order=2).item()
    assert cc(s[order], t[order], gamma=0.4, order=2).item() == pytest.approx(expected, rel=1e-9)


def test_it_has_nothing_that_learns():
    """Published code trains a layer on the teacher's embedding, which can end at zero."""
    assert list(create_method("cc").build(None, None, None).parameters()) == []


def test_one_sample_has_no_relation_to_learn():
    s, t = pair(1, 4)
    assert cc(s, t, gamma=0.4, order=2).item() == pytest.approx(0, abs=1e-15)


def test_zero_and_equal_embeddings_give_a_finite_loss_and_gradient():
    s, t = (z.float() for z in pair(4, 3))
    for degenerate in (torch.zeros(4, 3), s[:1].repeat(4, 1), torch.cat([torch.zeros(1, 3), s[1:]])):
        degenerate = degenerate.clone().requires_grad_()
        loss = cc(degenerate, t, gamma=0.4, order=2)
        loss.backward()
        assert loss.item() == pytest.approx(oracle(degenerate.detach().double().numpy(), t.double().numpy(), 0.4, 2), rel=1e-5)
        assert torch.isfinite(degenerate.grad).all()


def test_long_half_precise_embeddings_are_widened_before_they_are_squared():
    s, t = (z.half() for z in pair(4, 16, factor=1e4))
    loss = cc(s, t, gamma=0.4, order=2)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle(s.double().numpy(), t.double().numpy(), 0.4, 2), rel=1e-4)


def test_autocast_does_not_lower_the_products():
    s, t = (z.float() for z in pair(6, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = cc(s, t, gamma=0.4, order=2)
    assert lowered.item() == cc(s, t, gamma=0.4, order=2).item()


def test_the_method_is_the_function():
    s, t = pair(4, 3)
    said = create_method("cc").loss(outputs("student", embedding=s), outputs("teacher", embedding=t), None, nn.Module())
    assert said.item() == pytest.approx(oracle(s.numpy(), t.numpy(), 0.4, 2))
    with pytest.raises(InputError, match=r"cc\.order: expected a number >= 1, got 0"):
        create_method("cc", order=0)
