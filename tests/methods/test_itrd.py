"""Correlation and mutual information, against standard deviations and Gram matrices in loops."""

import math

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.functional import itrd

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
quick = settings(max_examples=25)


def correlation_part(student: np.ndarray, teacher: np.ndarray, order: float) -> float:
    """log2 sum_d |c_d - 1|^(2 order), c_d = sum_b s t / B of units without mean and of unit variance (over B - 1)."""
    batch, width = student.shape
    total = 0.0
    for d in range(width):
        s, t = student[:, d], teacher[:, d]
        deviations = [math.sqrt(sum((x - x.mean()) ** 2) / (batch - 1)) for x in (s, t)]
        c = sum((s[b] - s.mean()) * (t[b] - t.mean()) for b in range(batch)) / (deviations[0] * deviations[1]) / batch
        total += abs(c - 1) ** (2 * order)
    return math.log2(total)


def information_part(student: np.ndarray, teacher: np.ndarray) -> float:
    """sum G_s^2 - sum G_st^2 of matrices of trace 1."""

    def cosines(h: np.ndarray) -> np.ndarray:
        return np.array([[float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)) for b in h] for a in h])

    ours = cosines(student)
    joint = ours * cosines(teacher)
    return float(((ours / np.trace(ours)) ** 2).sum() - ((joint / np.trace(joint)) ** 2).sum())


@quick
@given(
    batch=st.integers(2, 6),
    widths=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    order=st.sampled_from([1.01, 1.5, 2.0]),
    weights=st.tuples(st.floats(0, 3), st.floats(0, 3)),
    seed=st.integers(0, 1000),
)
def test_it_is_both_parts_with_their_weights(batch, widths, order, weights, seed):
    p, t = pair(batch, widths[1], seed=seed)
    s = drawn(batch, widths[0], seed=2 * seed + 5000)
    correlation, information = correlation_part(p.numpy(), t.numpy(), order), information_part(s.numpy(), t.numpy())
    loss = itrd(p, s, t, order=order, correlation_weight=weights[0], information_weight=weights[1])
    assert loss.item() == pytest.approx(weights[0] * correlation + weights[1] * information, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("batch", [2, 5, 64])
def test_a_perfect_correlation_leaves_the_floor_of_the_published_code(batch):
    t = drawn(batch, 3)
    loss = itrd(2 * t + 1, t, t, order=1.5, correlation_weight=1.0, information_weight=0.0)
    assert loss.item() == pytest.approx(math.log2(3) - 3 * math.log2(batch), rel=1e-6)


def test_mutual_information_is_what_is_shared():
    t = drawn(6, 4)
    assert itrd(t, t, t, order=1.5, correlation_weight=0.0, information_weight=1.0).item() > 0
    alone = torch.eye(6, dtype=torch.float64)  # no two samples are alike: all that the student says, both say
    assert itrd(t, alone, t, order=1.5, correlation_weight=0.0, information_weight=1.0).item() == pytest.approx(0, abs=1e-12)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    p, t = (x.requires_grad_() for x in pair(5, 3))
    s = drawn(5, 4, seed=7).requires_grad_()
    weights = {"order": 1.5, "correlation_weight": 2.0, "information_weight": 1.0}
    assert torch.autograd.gradcheck(lambda x, y: itrd(x, y, t, **weights), (p, s))
    itrd(p, s, t, **weights).backward()
    assert t.grad is None


def test_constant_units_count_as_missed_and_those_of_the_teacher_as_matched():
    """In the authors' code either is NaN."""
    p, t = (x.float() for x in pair(8, 4))
    plain = [2 ** correlation_part(p[:, d : d + 1].double().numpy(), t[:, d : d + 1].double().numpy(), 1.5) for d in range(4)]
    p[:, 0], t[:, 1] = 3.0, 0.0
    expected = math.log2(1.0 + 8.0**-3 + plain[2] + plain[3])
    p.requires_grad_()
    loss = itrd(p, p, t, order=1.5, correlation_weight=1.0, information_weight=0.0)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert torch.isfinite(p.grad).all()


@pytest.mark.parametrize("student", [torch.zeros(4, 3), torch.ones(4, 3)])
def test_a_dead_embedding_stays_finite(student):
    student.requires_grad_()
    loss = itrd(student, student, drawn(4, 3).float(), order=1.5, correlation_weight=2.0, information_weight=1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_one_sample_has_neither_correlation_nor_relations():
    s = drawn(1, 3).requires_grad_()
    loss = itrd(s, s, drawn(1, 3, seed=1), order=1.5, correlation_weight=2.0, information_weight=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(2 * math.log2(3))
    assert not s.grad.any()


@pytest.mark.parametrize(("ours", "theirs"), [(4, 6), (6, 4), (5, 5)])
def test_the_method_projects_for_the_kernel_only_where_widths_differ(ours, theirs):
    method = create_method("itrd")
    module = method.build(Shapes(5, ours, ()), Shapes(5, theirs, ()), FACTS).double()
    s, t = drawn(5, ours), drawn(5, theirs, seed=1)
    projected = s.numpy() @ module.weight.detach().numpy().T + module.bias.detach().numpy()
    kernel = s.numpy() if ours == theirs else projected
    expected = 2 * correlation_part(projected, t.numpy(), 1.5) + information_part(kernel, t.numpy())
    loss = method.loss(outputs("student", embedding=s), outputs("teacher", embedding=t), None, module)
    assert loss.item() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    method = create_method("itrd")
    module = method.build(Shapes(5, 4, ()), Shapes(5, 6, ()), FACTS)
    s, t = drawn(5, 4).to(dtype), drawn(5, 6, seed=1).to(dtype)
    wide = method.loss(outputs("student", embedding=s.float()), outputs("teacher", embedding=t.float()), None, module)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method.loss(outputs("student", embedding=s), outputs("teacher", embedding=t), None, module)
    assert loss.dtype == torch.float32
    assert loss.item() == wide.item()
