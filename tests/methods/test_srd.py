"""The soft maximum of distances between batch-normalised embeddings, against loops over samples and units."""

import math

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.functional import srd

FACTS = DataFacts(10, 5, torch.arange(10) % 5)
quick = settings(max_examples=25)


def oracle(student: np.ndarray, teacher: np.ndarray, power: float) -> float:
    """log sum_(b, d) |BN(s) - BN(t)|^power: variances over B with 1e-4 added; 1e-5 within the logarithm."""
    total = 0.0
    for d in range(student.shape[1]):
        normal = []
        for unit in (student[:, d], teacher[:, d]):
            mean = sum(unit) / len(unit)
            variance = sum((x - mean) ** 2 for x in unit) / len(unit)
            normal.append([(x - mean) / math.sqrt(variance + 1e-4) for x in unit])
        total += sum(abs(a - b) ** power for a, b in zip(*normal, strict=True))
    return math.log(total + 1e-5)


@quick
@given(batch=st.integers(1, 6), width=st.integers(1, 5), power=st.sampled_from([1.0, 2.0, 4.0, 4.5]), seed=st.integers(0, 1000))
def test_it_is_the_logarithm_of_the_sum(batch, width, power, seed):
    s, t = pair(batch, width, seed=seed)
    assert srd(s, t, power=power).item() == pytest.approx(oracle(s.numpy(), t.numpy(), power), rel=1e-9)


def test_batch_norm_of_pytorch_gives_the_same():
    s, t = pair(6, 4)
    normal = [torch.nn.functional.batch_norm(x, None, None, training=True, eps=1e-4) for x in (s, t)]
    expected = math.log((normal[0] - normal[1]).pow(4).sum().item() + 1e-5)
    assert srd(s, t, power=4.0).item() == pytest.approx(expected)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = (x.requires_grad_() for x in pair(5, 3))
    assert torch.autograd.gradcheck(lambda x: srd(x, t, power=4.0), s)
    srd(s, t, power=4.0).backward()
    assert t.grad is None


@quick
@given(factor=st.floats(2, 50), shift=st.floats(-5, 5), seed=st.integers(0, 1000))
def test_a_scale_and_a_shift_of_a_unit_hardly_count(factor, shift, seed):
    s, t = pair(8, 3, seed=seed, factor=10)
    assert srd(s * factor + shift, t, power=4.0).item() == pytest.approx(srd(s, t, power=4.0).item(), rel=1e-3, abs=1e-3)


def test_a_batch_of_twice_the_size_shifts_the_loss_and_does_not_scale_its_gradient():
    s, t = pair(6, 3, factor=10)
    once, twice = s.clone().requires_grad_(), s.repeat(2, 1).requires_grad_()
    first, second = srd(once, t, power=4.0), srd(twice, t.repeat(2, 1), power=4.0)
    first.backward()
    second.backward()
    assert second.item() == pytest.approx(first.item() + math.log(2), rel=1e-6)
    assert torch.allclose(twice.grad[:6] + twice.grad[6:], once.grad, rtol=1e-6)


def test_a_match_is_finite():
    s = drawn(5, 3).requires_grad_()
    loss = srd(s, s.detach(), power=4.0)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1e-5))
    assert not s.grad.any()


@pytest.mark.parametrize("power", [1.0, 4.0])
@pytest.mark.parametrize("student", [torch.zeros(4, 3), torch.full((4, 3), 7.0), torch.ones(1, 3)])
def test_constant_units_and_one_sample_stay_finite(student, power):
    student = student.clone().requires_grad_()
    loss = srd(student, drawn(len(student), 3).float(), power=power)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize(("ours", "theirs"), [(4, 6), (6, 4), (5, 5)])
def test_the_method_projects_the_student_and_a_bias_would_not_count(ours, theirs):
    method = create_method("srd")
    module = method.build(Shapes(5, ours, ()), Shapes(5, theirs, ()), FACTS).double()
    s, t = drawn(5, ours), drawn(5, theirs, seed=1)
    projected = s.numpy() @ module.weight.detach().numpy().T
    loss = method.loss(outputs("student", embedding=s), outputs("teacher", embedding=t), None, module)
    assert loss.item() == pytest.approx(oracle(projected, t.numpy(), 4.0), rel=1e-9)
    assert loss.item() == pytest.approx(oracle(projected + np.arange(theirs), t.numpy(), 4.0), rel=1e-9)
    assert module.bias is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    method = create_method("srd")
    module = method.build(Shapes(5, 4, ()), Shapes(5, 6, ()), FACTS)
    s, t = drawn(5, 4).to(dtype), drawn(5, 6, seed=1).to(dtype)
    wide = method.loss(outputs("student", embedding=s.float()), outputs("teacher", embedding=t.float()), None, module)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method.loss(outputs("student", embedding=s), outputs("teacher", embedding=t), None, module)
    assert loss.dtype == torch.float32
    assert loss.item() == wide.item()
