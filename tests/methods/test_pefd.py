"""An ensemble of projectors, against cosines of averaged rectified projections in loops."""

import math

import numpy as np
import pytest
import torch
from drawn import drawn, outputs
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.functional import pefd

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
quick = settings(max_examples=25)


def oracle(projections: np.ndarray, teacher: np.ndarray) -> float:
    """1 - cos(mean over projectors, t), mean over the batch; a zero vector has cosine 0."""
    total = 0.0
    for ensemble, t in zip(projections, teacher, strict=True):
        mean = sum(ensemble) / len(ensemble)
        lengths = math.sqrt(float(mean @ mean)) * math.sqrt(float(t @ t))
        total += 1 - (float(mean @ t) / lengths if lengths else 0.0)
    return total / len(teacher)


@quick
@given(batch=st.integers(1, 5), projectors=st.integers(1, 4), width=st.integers(1, 5), seed=st.integers(0, 1000))
def test_it_is_the_mean_of_one_minus_the_cosine_of_the_mean(batch, projectors, width, seed):
    p, t = drawn(batch, projectors, width, seed=seed), drawn(batch, width, seed=seed + 1)
    assert pefd(p, t).item() == pytest.approx(oracle(p.numpy(), t.numpy()), rel=1e-9, abs=1e-12)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    p, t = drawn(4, 3, 5).requires_grad_(), drawn(4, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pefd(x, t), p)
    pefd(p, t).backward()
    assert t.grad is None


def test_lengths_do_not_count():
    p, t = drawn(4, 3, 5), drawn(4, 5, seed=1)
    assert pefd(3 * p, 7 * t).item() == pytest.approx(pefd(p, t).item())
    assert pefd(t[:, None].expand(-1, 3, -1), t).item() == pytest.approx(0, abs=1e-12)


def test_a_sample_that_all_projectors_hold_at_zero_has_cosine_zero():
    """In the authors' code it is NaN."""
    p, t = drawn(3, 2, 4).abs(), drawn(3, 4, seed=1)
    p[1], t[2] = 0, 0
    p.requires_grad_()
    loss = pefd(p, t)
    loss.backward()
    assert loss.item() == pytest.approx(oracle(p.detach().numpy(), t.numpy()))
    assert torch.isfinite(p.grad).all()


def method_and_module(ours: int, theirs: int, **hyperparameters):
    method = create_method("pefd", **hyperparameters)
    return method, method.build(Shapes(5, ours, ()), Shapes(5, theirs, ()), FACTS)


@pytest.mark.parametrize(("ours", "theirs"), [(4, 6), (6, 4), (5, 5)])
@pytest.mark.parametrize("signed", [False, True])
def test_the_method_rectifies_every_projection_before_the_mean(ours, theirs, signed):
    method, module = method_and_module(ours, theirs, projectors=2)
    module.double()
    s, t = drawn(4, ours), drawn(4, theirs, seed=1)
    t = t if signed else t.abs()
    weight, bias = (p.detach().numpy() for p in module.project.parameters())
    each = [s.numpy() @ weight[m * theirs : (m + 1) * theirs].T + bias[m * theirs : (m + 1) * theirs] for m in range(2)]
    rectified = np.maximum(np.stack(each, axis=1), min(0.0, t.min().item()))
    loss = method.loss(outputs("student", embedding=s), outputs("teacher", embedding=t), None, module)
    assert loss.item() == pytest.approx(oracle(rectified, t.numpy()), rel=1e-9)


def test_projectors_begin_apart_and_as_separate_layers_would():
    _, module = method_and_module(16, 9, projectors=3)
    weights = module.project.weight.detach().unflatten(0, (3, 9))
    assert not torch.equal(weights[0], weights[1])
    assert weights.abs().max().item() <= 1 / math.sqrt(16)
    assert weights.abs().max().item() > 0.9 / math.sqrt(16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    method, module = method_and_module(4, 6)
    s, t = drawn(5, 4).to(dtype), drawn(5, 6, seed=1).to(dtype)
    wide = method.loss(outputs("student", embedding=s.float()), outputs("teacher", embedding=t.float()), None, module)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method.loss(outputs("student", embedding=s), outputs("teacher", embedding=t), None, module)
    assert loss.dtype == torch.float32
    assert loss.item() == wide.item()
