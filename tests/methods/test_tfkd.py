"""The virtual teacher, against its definition in loops."""

import math

import numpy as np
import pytest
import torch
from drawn import batch_of, drawn, outputs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdzoo.contract.methods import REGISTRY, create_method
from kdzoo.contract.outputs import Outputs
from kdzoo.contract.shapes import DataFacts, Shapes
from kdzoo.errors import InputError
from kdzoo.functional import tfkd


def softened(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(z)) / temperature) for value in z]
    return [power / sum(powers) for power in powers]


def oracle(s: np.ndarray, y: list[int], correct: float, temperature: float) -> float:
    total = 0.0
    for student, target in zip(s.tolist(), y, strict=True):
        given = [correct if k == target else (1 - correct) / (len(student) - 1) for k in range(len(student))]
        powers = [p ** (1 / temperature) for p in given]
        pairs = zip([p / sum(powers) for p in powers], softened(student, temperature), strict=True)
        total += sum(p * math.log(p / q) for p, q in pairs)
    return temperature**2 * total / len(s)


def labels(batch: int, classes: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30)
@given(
    batch=st.integers(1, 6),
    classes=st.integers(2, 8),
    correct=st.floats(0.6, 0.999),
    temperature=st.floats(0.5, 40),
    seed=st.integers(0, 1000),
)
def test_it_is_the_papers_equation(batch, classes, correct, temperature, seed):
    s = drawn(batch, classes, seed=seed, factor=3)
    y = labels(batch, classes, seed)
    expected = oracle(s.numpy(), y.tolist(), correct, temperature)
    assert tfkd(s, y, correct=correct, temperature=temperature).item() == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_without_softening_it_is_cross_entropy_with_smoothed_labels_less_their_entropy():
    s, y = drawn(4, 5), labels(4, 5)
    smoothing = 0.1 * 5 / 4
    smoothed = torch.nn.functional.cross_entropy(s, y, label_smoothing=smoothing)
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.025))
    assert tfkd(s, y, correct=0.9, temperature=1.0).item() == pytest.approx(smoothed.item() - entropy)


def test_it_is_zero_for_a_student_that_says_what_the_virtual_teacher_says():
    y = labels(3, 5)
    says = torch.full((3, 5), math.log(0.01 / 4), dtype=torch.float64)
    says[torch.arange(3), y] = math.log(0.99)
    assert tfkd(says + drawn(3, 1), y, correct=0.99, temperature=20.0).item() == pytest.approx(0, abs=1e-10)


def test_its_gradient_is_the_numerical_one_and_pushes_towards_the_label():
    s, y = drawn(4, 5).requires_grad_(), labels(4, 5)
    assert torch.autograd.gradcheck(lambda x: tfkd(x, y, correct=0.99, temperature=20.0), s)
    tfkd(s, y, correct=0.99, temperature=20.0).backward()
    assert (s.grad.gather(1, y[:, None]) < 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_large_logits_are_finite(dtype):
    s = torch.tensor([[1e4, 0.0, -1e4]], dtype=dtype).requires_grad_()
    loss = tfkd(s, torch.tensor([1]), correct=0.99, temperature=20.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(s.grad).all()


def test_it_needs_no_teacher():
    s, y = drawn(3, 4), labels(3, 4)
    said = create_method("tfkd").loss(outputs("student", logits=s), Outputs(owner="teacher"), batch_of(torch.arange(3), y), nn.Module())
    assert said.item() == pytest.approx(oracle(s.numpy(), y.tolist(), 0.99, 20.0))
    card = REGISTRY.get("tfkd").card
    assert not card.needs.teacher


def test_a_virtual_teacher_no_better_than_chance_is_refused():
    shapes, facts = Shapes(4, 8, ()), DataFacts(8, 4, torch.zeros(8))
    create_method("tfkd", correct=0.3).build(shapes, shapes, facts)
    with pytest.raises(InputError, match=r"correct: expected more than a chance of 1/4, got 0\.25"):
        create_method("tfkd", correct=0.25).build(shapes, shapes, facts)
