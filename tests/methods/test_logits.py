"""Mimicked logits, against the mean of squares in loops."""

import numpy as np
import pytest
import torch
from drawn import outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.functional import logits


def oracle(s: np.ndarray, t: np.ndarray) -> float:
    squares = [(a - b) ** 2 for a, b in zip(s.ravel(), t.ravel(), strict=True)]
    return sum(squares) / len(squares)


@settings(max_examples=30)
@given(batch=st.integers(1, 6), classes=st.integers(2, 8), seed=st.integers(0, 1000))
def test_it_is_the_mean_of_squares_in_any_order(batch, classes, seed):
    s, t = pair(batch, classes, seed=seed, factor=4)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    assert logits(s, t).item() == pytest.approx(oracle(s.numpy(), t.numpy()), rel=1e-12)
    assert logits(s[order], t[order]).item() == pytest.approx(logits(s, t).item(), rel=1e-12)


def test_its_gradient_is_twice_the_difference_over_batch_and_classes():
    s, t = (z.requires_grad_() for z in pair(3, 4))
    logits(s, t).backward()
    np.testing.assert_allclose(s.grad.numpy(), 2 * (s - t).detach().numpy() / 12, rtol=1e-12)
    assert t.grad is None
    assert torch.autograd.gradcheck(lambda x: logits(x, t), s)


def test_it_is_zero_exactly_where_the_two_agree():
    s, t = pair(2, 5)
    assert logits(t, t).item() == 0
    assert logits(s, t).item() > 0


def test_logits_of_ten_thousand_and_half_precision_do_not_overflow():
    s, t = torch.full((2, 2), 1e4, dtype=torch.float16), torch.full((2, 2), -1e4, dtype=torch.float16)
    loss = logits(s, t)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(4e8)


def test_the_method_is_the_function():
    s, t = pair(2, 3)
    made = create_method("logits")
    assert made.loss(outputs("student", logits=s), outputs("teacher", logits=t), None, nn.Module()).item() == pytest.approx(
        oracle(s.numpy(), t.numpy())
    )
