"""Redundancy suppression, against the paper's sums in loops."""

import numpy as np
import pytest
import torch
from drawn import drawn, outputs, pair
from hypothesis import given, settings
from hypothesis import strategies as st

from kdzoo.contract.methods import create_method
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.functional import rsd

FACTS = DataFacts(10, 5, torch.arange(10) % 5)


def oracle(student: np.ndarray, teacher: np.ndarray, weight: float) -> float:
    """sum_d (C_dd - 1)^2 + weight sum_(d != e) C_de^2, C_de the mean over the batch of the teacher's unit d times the student's e."""

    def normal(units: np.ndarray) -> list[list[float]]:
        columns = []
        for column in units.T.tolist():
            mean = sum(column) / len(column)
            deviation = (sum((x - mean) ** 2 for x in column) / len(column)) ** 0.5
            columns.append([(x - mean) / (deviation + 1e-5) for x in column])
        return columns

    ours, theirs = normal(student), normal(teacher)
    total = 0.0
    for d, t in enumerate(theirs):
        for e, s in enumerate(ours):
            c = sum(a * b for a, b in zip(t, s, strict=True)) / len(t)
            total += (c - 1) ** 2 if d == e else weight * c**2
    return total


@settings(max_examples=25)
@given(batch=st.integers(2, 6), width=st.integers(1, 5), weight=st.sampled_from([0.0, 0.01, 1.0]), seed=st.integers(0, 1000))
def test_it_is_the_papers_sums(batch, width, weight, seed):
    s, t = pair(batch, width, seed=seed)
    assert rsd(s, t, decorrelation_weight=weight).item() == pytest.approx(oracle(s.numpy(), t.numpy(), weight), rel=1e-9)


def test_its_gradient_is_the_numerical_one_and_the_teacher_gets_none():
    s, t = (x.requires_grad_() for x in pair(5, 3))
    assert torch.autograd.gradcheck(lambda x: rsd(x, t, decorrelation_weight=0.01), s)
    rsd(s, t, decorrelation_weight=0.01).backward()
    assert t.grad is None


def test_where_the_student_tells_the_same_the_diagonal_is_zero():
    t = drawn(50, 4)
    assert rsd(3 * t + 7, t, decorrelation_weight=0.0).item() == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("student", [torch.zeros(4, 3), torch.full((4, 3), 7.0), torch.ones(1, 3)])
def test_constant_units_and_one_sample_stay_finite_and_cost_one_each(student):
    student = student.clone().requires_grad_()
    loss = rsd(student, drawn(len(student), 3).float(), decorrelation_weight=0.01)
    loss.backward()
    assert loss.item() == pytest.approx(3)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("batch", [1, 6])
def test_the_projector_leads_to_the_teachers_width_and_takes_one_sample_too(batch):
    method = create_method("rsd", expansion=3)
    module = method.build(Shapes(5, 4, ()), Shapes(5, 7, ()), FACTS).train()
    assert module.expand.weight.shape == (12, 4)
    assert module.expand.bias is module.contract.bias is None
    s, t = drawn(batch, 4).float(), drawn(batch, 7, seed=1).float()
    if batch > 1:  # the paper's projector, by PyTorch's own layers
        hidden = s @ module.expand.weight.T
        normal = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
        projected = (normal * 0.5 * (1 + torch.erf(normal / 2**0.5))) @ module.contract.weight.T
        expected = oracle(projected.detach().double().numpy(), t.double().numpy(), 0.01)
    else:
        expected = 7
    loss = method.loss(outputs("student", embedding=s), outputs("teacher", embedding=t), None, module)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_the_projector_starts_from_weights_of_deviation_0_02():
    module = create_method("rsd").build(Shapes(5, 64, ()), Shapes(5, 96, ()), FACTS)
    matrices = [p for p in module.parameters() if p.ndim == 2]
    assert len(matrices) == 2
    for matrix in matrices:
        assert matrix.std().item() == pytest.approx(0.02, rel=0.05)
