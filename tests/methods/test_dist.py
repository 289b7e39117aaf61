"""Correlated predictions, against NumPy's correlation coefficients row by row and column by column."""

import numpy as np
import pytest
import torch
from drawn import outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import create_method
from kdzoo.functional import dist

quick = settings(max_examples=30)
seeds = st.integers(0, 1000)


def softened(z: np.ndarray, temperature: float) -> np.ndarray:
    powers = np.exp((z - z.max(1, keepdims=True)) / temperature)
    return powers / powers.sum(1, keepdims=True)


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (max(np.sqrt((a**2).sum()), 1e-8) * max(np.sqrt((b**2).sum()), 1e-8)))


def oracle(s: np.ndarray, t: np.ndarray, temperature: float, inter_weight: float, intra_weight: float) -> float:
    p, q = softened(s, temperature), softened(t, temperature)
    inter = 1 - np.mean([pearson(a, b) for a, b in zip(p, q, strict=True)])
    intra = 1 - np.mean([pearson(a, b) for a, b in zip(p.T, q.T, strict=True)]) if len(s) > 1 else 0.0
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


@quick
@given(
    batch=st.integers(1, 6),
    classes=st.integers(2, 8),
    temperature=st.floats(0.5, 10),
    weights=st.tuples(st.floats(0, 3), st.floats(0, 3)),
    seed=seeds,
)
def test_it_is_the_papers_equations(batch, classes, temperature, weights, seed):
    s, t = pair(batch, classes, seed=seed, factor=2)
    expected = oracle(s.numpy(), t.numpy(), temperature, *weights)
    got = dist(s, t, temperature=temperature, inter_weight=weights[0], intra_weight=weights[1])
    assert got.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_correlations_are_numpys():
    s, t = pair(5, 6)
    rows = np.corrcoef(softened(s.numpy(), 1.0), softened(t.numpy(), 1.0))
    expected = 1 - np.mean([rows[i, 5 + i] for i in range(5)])
    assert dist(s, t, temperature=1.0, inter_weight=1.0, intra_weight=0.0).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_its_gradient_is_the_numerical_one(weights):
    s, t = pair(4, 5)
    loss = lambda x: dist(x, t, temperature=2.0, inter_weight=weights[0], intra_weight=weights[1])  # noqa: E731
    assert torch.autograd.gradcheck(loss, s.requires_grad_())


def test_one_sample_has_no_relation_to_the_batch():
    s, t = pair(1, 5)
    assert dist(s, t, temperature=1.0, inter_weight=0.0, intra_weight=1.0).item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_rows_and_columns_give_a_finite_loss_and_gradient(dtype):
    _, t = (z.to(dtype) for z in pair(4, 5))
    for same in (torch.zeros(4, 5, dtype=dtype), t[:1].repeat(4, 1), torch.full((4, 5), 0.1, dtype=dtype)):
        same = same.clone().requires_grad_()
        loss = dist(same, t, temperature=4.0, inter_weight=1.0, intra_weight=1.0)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(same.grad).all()


def test_many_classes_at_a_high_temperature_still_agree_with_themselves():
    """An epsilon added to the product of the norms would be a tenth of it here."""
    t, _ = pair(16, 1000)
    assert dist(t, t, temperature=200.0, inter_weight=1.0, intra_weight=1.0).item() == pytest.approx(0, abs=1e-6)


def test_it_is_zero_where_the_two_agree_and_the_teacher_gets_no_gradient():
    s, t = (z.requires_grad_() for z in pair(3, 4))
    assert dist(t, t, temperature=1.0, inter_weight=1.0, intra_weight=1.0).item() == pytest.approx(0, abs=1e-12)
    dist(s, t, temperature=1.0, inter_weight=1.0, intra_weight=1.0).backward()
    assert t.grad is None


def test_half_precision_is_widened_first():
    s, t = (z.half() for z in pair(4, 100, factor=5))
    loss = dist(s, t, temperature=4.0, inter_weight=1.0, intra_weight=1.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(oracle(s.double().numpy(), t.double().numpy(), 4.0, 1.0, 1.0), rel=1e-4)


def test_the_method_is_the_function():
    s, t = pair(3, 4)
    said = create_method("dist", temperature=1.0).loss(outputs("student", logits=s), outputs("teacher", logits=t), None, nn.Module())
    assert said.item() == pytest.approx(oracle(s.numpy(), t.numpy(), 1.0, 1.0, 1.0))
